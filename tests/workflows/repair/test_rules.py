"""Which runs that no replay can go on with are reset, and which are left to a human."""

import pytest

from workflows.repair import rules
from workflows.repair.rules import MAX_RESETS, MAX_STUCK_RUNS, RepairOutcome, StuckRun
from workflows.repair.workflow import RepairReport, RepairResult, details


def runs(number: int) -> list[StuckRun]:
    return [StuckRun(workflow_id=f"ws-{each}", run_id=f"run-{each}") for each in range(number)]


@pytest.mark.parametrize("number", range(MAX_STUCK_RUNS + 1))
def test_a_few_are_each_looked_at(number: int) -> None:
    assert rules.blocked_reason(runs(number)) is None


def test_many_at_once_are_a_change_of_the_program_and_none_is_touched() -> None:
    assert rules.blocked_reason(runs(MAX_STUCK_RUNS + 1)) == (
        "more than 5 runs break determinism at once, so the program has changed: "
        "put the workers' earlier version back, and all of them go on"
    )


@pytest.mark.parametrize("resets", range(MAX_RESETS + 2))
@pytest.mark.parametrize("diverges_at", [None, 17])
@pytest.mark.parametrize("is_current", [True, False])
def test_a_run_is_reset_if_it_is_current_and_parts_and_was_not_reset_too_often(
    *, is_current: bool, diverges_at: int | None, resets: int
) -> None:
    judged = rules.decide(is_current=is_current, diverges_at=diverges_at, resets=resets)
    if not is_current or diverges_at is None:
        assert judged.outcome is RepairOutcome.GOES_ON
    elif resets >= MAX_RESETS:
        assert judged.outcome is RepairOutcome.LEFT
        assert f"it was reset {resets} times, and parts again at event 17" in judged.why
        assert "onebox replay" in judged.why
    else:
        assert judged.outcome is RepairOutcome.RESET


def test_details_name_each_run_and_what_became_of_it() -> None:
    run = RepairResult(
        workflow_id="ws-1", run_id="run-1", outcome=RepairOutcome.RESET, why="it parts | at event 17"
    )
    told = details(RepairReport(runs=(run,), blocked_reason=None))
    assert told.startswith("**1 run stands still**")
    assert "| ws-1 | run-1 | reset | it parts \\| at event 17 |" in told
    assert details(RepairReport(runs=(), blocked_reason=None)) == "No run stands still."
