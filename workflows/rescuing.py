"""What is done about runs that no replay can go on with: which are reset, and which are left to a human.

Functions of values; how such runs are found, and where a replay parts from them, is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MOST_AT_ONCE = 5
"""More of them are no accident: the program has changed, and its earlier version goes on with all of them."""

MOST_RESETS = 3
"""Of one run. What stands still again and again is mended by nobody but a human."""


class Fate(StrEnum):
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
class Judged:
    """What becomes of a run, and why."""

    fate: Fate
    why: str


def held(runs: Sequence[StuckRun]) -> str | None:
    """Why none of them is touched; None if each may be looked at."""
    if len(runs) <= MOST_AT_ONCE:
        return None
    return (
        f"more than {MOST_AT_ONCE} runs break determinism at once, so the program has changed: "
        "put the workers' earlier version back, and all of them go on"
    )


def judge(*, is_current: bool, parts_at: int | None, resets: int) -> Judged:
    """What becomes of one run.

    `is_current`: it runs, and no other run has taken its place. `parts_at` is the task whose commands are
    other ones in a replay, by the event that it ended with; `resets` is how often we have reset the run.
    """
    if not is_current:
        return Judged(fate=Fate.GOES_ON, why="another run has taken its place, or it was ended")
    if parts_at is None:
        return Judged(fate=Fate.GOES_ON, why="this version of the workers replays it to its end")
    if resets >= MOST_RESETS:
        return Judged(
            fate=Fate.LEFT,
            why=f"it was reset {resets} times, and parts again at event {parts_at}: see what "
            "`onebox replay` says of it, then terminate it and start it again",
        )
    return Judged(fate=Fate.RESET, why=f"a replay parts from what was recorded at event {parts_at}")
