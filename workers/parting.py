"""Where a replay by this code parts from what a run did, for those who reset it.

Replays and compares; what is done about it is not known here.
"""

from temporalio.client import WorkflowHistory
from temporalio.converter import PayloadCodec

from workers.commands import recorded_tasks
from workers.decrypting import decrypt
from workers.recall import Recalled, recall

NOT_DETERMINISTIC = "[TMPRL1100]"
"""How Temporal's SDK begins what it says of commands that are not the recorded ones."""


async def parting(history: WorkflowHistory, codec: PayloadCodec) -> int | None:
    """The end of the first task that a replay ends otherwise, by its WorkflowTaskCompleted event.

    None if the whole history replays, or fails for another reason. Decrypts the history in place; raises
    `KeyUnknown`.
    """
    await decrypt(history, codec)
    recalled = await recall(history)
    if recalled.failure is None or NOT_DETERMINISTIC not in recalled.failure:
        return None
    parted = _parted(recalled, history)
    return next((task.completed for task in recorded_tasks(history.events) if task.started == parted), None)


def _parted(recalled: Recalled, history: WorkflowHistory) -> int | None:
    """The task that was not ended as recorded, by the event that it began with."""
    if recalled.difference is not None:
        event = recalled.difference.event
        ended = [
            task for task in recorded_tasks(history.events) if task.completed and task.completed <= event
        ]
        return ended[-1].started
    # What differs has no event of its own, as the answer to an update: the SDK went no further than there.
    return recalled.tasks[-1].started if recalled.tasks else None
