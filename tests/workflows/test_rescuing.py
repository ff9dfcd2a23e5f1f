"""Which runs that no replay can go on with are reset, and which are left to a human."""

import pytest

from workflows import rescuing
from workflows.rescue import Rescued, RescueReport, details
from workflows.rescuing import MOST_AT_ONCE, MOST_RESETS, Fate, StuckRun


def runs(number: int) -> list[StuckRun]:
    return [StuckRun(workflow_id=f"ws-{each}", run_id=f"run-{each}") for each in range(number)]


@pytest.mark.parametrize("number", range(MOST_AT_ONCE + 1))
def test_a_few_are_each_looked_at(number: int) -> None:
    assert rescuing.held(runs(number)) is None


def test_many_at_once_are_a_change_of_the_program_and_none_is_touched() -> None:
    assert rescuing.held(runs(MOST_AT_ONCE + 1)) == (
        "more than 5 runs break determinism at once, so the program has changed: "
        "put the workers' earlier version back, and all of them go on"
    )


@pytest.mark.parametrize("resets", range(MOST_RESETS + 2))
@pytest.mark.parametrize("parts_at", [None, 17])
@pytest.mark.parametrize("is_current", [True, False])
def test_a_run_is_reset_if_it_is_current_and_parts_and_was_not_reset_too_often(
    *, is_current: bool, parts_at: int | None, resets: int
) -> None:
    judged = rescuing.judge(is_current=is_current, parts_at=parts_at, resets=resets)
    if not is_current or parts_at is None:
        assert judged.fate is Fate.GOES_ON
    elif resets >= MOST_RESETS:
        assert judged.fate is Fate.LEFT
        assert f"it was reset {resets} times, and parts again at event 17" in judged.why
        assert "onebox replay" in judged.why
    else:
        assert judged.fate is Fate.RESET


def test_details_name_each_run_and_what_became_of_it() -> None:
    run = Rescued(workflow_id="ws-1", run_id="run-1", fate=Fate.RESET, why="it parts | at event 17")
    told = details(RescueReport(runs=(run,), held=None))
    assert told.startswith("**1 run stands still**")
    assert "| ws-1 | run-1 | reset | it parts \\| at event 17 |" in told
    assert details(RescueReport(runs=(), held=None)) == "No run stands still."
