"""Which stuck workflow runs are reset, and which are left to an operator. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_STUCK_RUNS = 5
"""More stuck runs at once mean an incompatible deployment: rolling it back unblocks all of them."""

MAX_RESETS = 3
"""Per run. A run that gets stuck again and again needs an operator."""


class RepairOutcome(StrEnum):
    """What is done about a stuck run."""

    RESET = "reset"
    RECOVERED = "recovered"
    """This version of the code replays it to its end, so it continues with its next task."""
    LEFT = "left"
    """An operator must act, or the next round tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckRun:
    """A run whose workflow tasks keep failing with a non-determinism error."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairDecision:
    """What is done about a run, and why."""

    outcome: RepairOutcome
    why: str


def blocked_reason(runs: Sequence[StuckRun]) -> str | None:
    """Why none of the runs is reset; None if each may be."""
    if len(runs) <= MAX_STUCK_RUNS:
        return None
    return (
        f"more than {MAX_STUCK_RUNS} runs are stuck at once, so the deployed code is incompatible: "
        "roll the workers back, and all of them continue"
    )


def decide(*, is_current: bool, diverges_at: int | None, resets: int) -> RepairDecision:
    """Decide about one run.

    `is_current`: the run is open and not replaced by another. `diverges_at`: the WorkflowTaskCompleted event
    of the first task that replays differently. `resets`: how often the run was reset.
    """
    if not is_current:
        return RepairDecision(outcome=RepairOutcome.RECOVERED, why="another run replaced it, or it has ended")
    if diverges_at is None:
        return RepairDecision(
            outcome=RepairOutcome.RECOVERED, why="this version of the workers replays it to its end"
        )
    if resets >= MAX_RESETS:
        return RepairDecision(
            outcome=RepairOutcome.LEFT,
            why=f"it was reset {resets} times, and diverges again at event {diverges_at}: inspect it with "
            "`onebox replay`, then terminate it and start it again",
        )
    return RepairDecision(
        outcome=RepairOutcome.RESET, why=f"its replay diverges from the history at event {diverges_at}"
    )
