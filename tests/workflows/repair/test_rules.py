"""Which stuck workflow runs are reset, and which are left to an operator."""

import pytest

from workflows.repair import rules
from workflows.repair.rules import MAX_RESETS, MAX_STUCK_RUNS, RepairOutcome, StuckRun
from workflows.repair.workflow import RepairReport, RepairResult, details


def runs(number: int) -> list[StuckRun]:
    return [StuckRun(workflow_id=f"ws-{each}", run_id=f"run-{each}") for each in range(number)]


def test_a_few_stuck_runs_are_each_checked() -> None:
    assert rules.blocked_reason(runs(MAX_STUCK_RUNS)) is None


def test_many_stuck_runs_point_to_the_deployment_and_none_is_reset() -> None:
    assert rules.blocked_reason(runs(MAX_STUCK_RUNS + 1)) == (
        "more than 5 runs are stuck at once, so the deployed code is incompatible: "
        "roll the workers back, and all of them continue"
    )


@pytest.mark.parametrize("resets", [0, MAX_RESETS - 1, MAX_RESETS])
@pytest.mark.parametrize("diverges_at", [None, 17])
@pytest.mark.parametrize("is_current", [True, False])
def test_a_current_run_that_diverges_is_reset_a_limited_number_of_times(
    *, is_current: bool, diverges_at: int | None, resets: int
) -> None:
    decision = rules.decide(is_current=is_current, diverges_at=diverges_at, resets=resets)
    if not is_current or diverges_at is None:
        assert decision.outcome is RepairOutcome.RECOVERED
    elif resets >= MAX_RESETS:
        assert decision.outcome is RepairOutcome.LEFT
        assert f"it was reset {resets} times, and diverges again at event 17" in decision.why
        assert "onebox replay" in decision.why
    else:
        assert decision.outcome is RepairOutcome.RESET


def test_details_name_each_run_and_its_outcome() -> None:
    run = RepairResult(
        workflow_id="ws-1", run_id="run-1", outcome=RepairOutcome.RESET, why="it diverges | at event 17"
    )
    text = details(RepairReport(runs=(run,), blocked_reason=None))
    assert text.startswith("**Stuck workflow runs: 1**")
    assert "| ws-1 | run-1 | reset | it diverges \\| at event 17 |" in text
    assert details(RepairReport(runs=(), blocked_reason=None)) == "No stuck workflow runs."
