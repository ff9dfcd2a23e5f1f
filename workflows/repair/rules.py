"""What is done about runs that no replay can go on with: which are reset, and which are left to a human.

Functions of values; how such runs are found, and where a replay parts from them, is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_STUCK_RUNS = 5
"""More of them are no accident: the program has changed, and its earlier version goes on with all of them."""

MAX_RESETS = 3
"""Of one run. What stands still again and again is mended by nobody but a human."""


class RepairOutcome(StrEnum):
    """What becomes of a run that was found to stand still."""

    RESET = "reset"
    GOES_ON = "goes on"
    """This code replays it to its end: it goes on by itself with its next task."""
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckRun:
    """A run of whose tasks the server says that one after the other breaks determinism."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairDecision:
    """What becomes of a run, and why."""

    outcome: RepairOutcome
    why: str


def blocked_reason(runs: Sequence[StuckRun]) -> str | None:
    """Why none of them is touched; None if each may be looked at."""
    if len(runs) <= MAX_STUCK_RUNS:
        return None
    return (
        f"more than {MAX_STUCK_RUNS} runs break determinism at once, so the program has changed: "
        "put the workers' earlier version back, and all of them go on"
    )


def decide(*, is_current: bool, diverges_at: int | None, resets: int) -> RepairDecision:
    """What becomes of one run.

    `is_current`: it runs, and no other run has taken its place. `diverges_at` is the task whose commands are
    other ones in a replay, by the event that it ended with; `resets` is how often we have reset the run.
    """
    if not is_current:
        return RepairDecision(
            outcome=RepairOutcome.GOES_ON, why="another run has taken its place, or it was ended"
        )
    if diverges_at is None:
        return RepairDecision(
            outcome=RepairOutcome.GOES_ON, why="this version of the workers replays it to its end"
        )
    if resets >= MAX_RESETS:
        return RepairDecision(
            outcome=RepairOutcome.LEFT,
            why=f"it was reset {resets} times, and parts again at event {diverges_at}: see what "
            "`onebox replay` says of it, then terminate it and start it again",
        )
    return RepairDecision(
        outcome=RepairOutcome.RESET, why=f"a replay parts from what was recorded at event {diverges_at}"
    )
