"""Finds the workflow task at which a replay diverges from the history; the repair workflow resets to it."""

from temporalio.client import WorkflowHistory
from temporalio.converter import PayloadCodec

from workers.history.command_diff import recorded_tasks
from workers.history.decryption import decrypt
from workers.history.replay_run import ReplayedRun, replay_run

NONDETERMINISM_CODE = "[TMPRL1100]"
"""The SDK's code for commands that differ from the recorded ones."""


async def find_divergence(history: WorkflowHistory, codec: PayloadCodec) -> int | None:
    """The WorkflowTaskCompleted event ID of the first task that replays with different commands.

    None if the whole history replays, or if the replay fails for another reason. Decrypts the history in
    place. Raises `KeyUnknown`.
    """
    await decrypt(history, codec)
    replayed = await replay_run(history)
    if replayed.failure is None or NONDETERMINISM_CODE not in replayed.failure:
        return None
    started = _diverging_task(replayed, history)
    return next((task.completed for task in recorded_tasks(history.events) if task.started == started), None)


def _diverging_task(replayed: ReplayedRun, history: WorkflowHistory) -> int | None:
    """The WorkflowTaskStarted event ID of the diverging task."""
    if replayed.difference is not None:
        event = replayed.difference.event
        ended = [
            task for task in recorded_tasks(history.events) if task.completed and task.completed <= event
        ]
        return ended[-1].started
    # The difference has no event, as with an update response; the SDK stops at the diverging task.
    return replayed.tasks[-1].started if replayed.tasks else None
