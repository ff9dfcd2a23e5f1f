"""Where a replay by this code parts from what a run did, for those who reset it.

Replays and compares; what is done about it is not known here.
"""

from temporalio.client import WorkflowHistory
from temporalio.converter import PayloadCodec

from workers.history.command_diff import recorded_tasks
from workers.history.decryption import decrypt
from workers.history.replay_run import ReplayedRun, replay_run

NONDETERMINISM_CODE = "[TMPRL1100]"
"""How Temporal's SDK begins what it says of commands that are not the recorded ones."""


async def find_divergence(history: WorkflowHistory, codec: PayloadCodec) -> int | None:
    """The end of the first task that a replay ends otherwise, by its WorkflowTaskCompleted event.

    None if the whole history replays, or fails for another reason. Decrypts the history in place; raises
    `KeyUnknown`.
    """
    await decrypt(history, codec)
    replayed = await replay_run(history)
    if replayed.failure is None or NONDETERMINISM_CODE not in replayed.failure:
        return None
    parted = _diverging_task(replayed, history)
    return next((task.completed for task in recorded_tasks(history.events) if task.started == parted), None)


def _diverging_task(replayed: ReplayedRun, history: WorkflowHistory) -> int | None:
    """The task that was not ended as recorded, by the event that it began with."""
    if replayed.difference is not None:
        event = replayed.difference.event
        ended = [
            task for task in recorded_tasks(history.events) if task.completed and task.completed <= event
        ]
        return ended[-1].started
    # What differs has no event of its own, as the answer to an update: the SDK went no further than there.
    return replayed.tasks[-1].started if replayed.tasks else None
