"""Weeks in seconds: when a box that does not come online is recreated, when that ends, what the record says.

The tables of docs/recovery.md are made here, and compared.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.documents import ROOT
from tests.workflows.workspace.scenarios import NO_CANARY, T0, asked, enrolled, registered, step_done
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import (
    ConditionType,
    Phase,
    RegisterCallCount,
    RegistrationStatus,
    State,
    Step,
    Timings,
)

DOCS = ROOT / "docs" / "recovery.md"
WEEK = timedelta(weeks=1)

IMPATIENT = replace(NO_CANARY, register_deadline=timedelta(minutes=1))

Line = tuple[str, str, str, str, str, str]
Box = Callable[[State, datetime], State]
"""What the box does when its workspace rests; the same state if it does nothing."""


def never(state: State, at: datetime) -> State:
    return state


def story(
    begun: State, box: Box, *, seen: Callable[[State], RegistrationStatus], until: timedelta
) -> tuple[State, list[Line]]:
    """Let time pass; each change of what the record says is a line."""
    state, at, lines = begun, T0, list[Line]()
    while True:
        while (step := lifecycle.due(state, at)) is not None:
            if step is Step.CHECK_REGISTRATION:
                state = lifecycle.apply(state, seen(state), at)
            else:
                state = step_done(state, at, timings=state.timings)
        state = box(state, at)
        line = _line(state, at)
        if not lines or line[1:] != lines[-1][1:]:
            lines.append(line)
        wake = lifecycle.wake_at(state)
        if wake is None or wake - T0 > until:
            return state, lines
        at = wake
        state = lifecycle.apply(state, lifecycle.Tick(), at)


def _line(state: State, at: datetime) -> Line:
    allowed = next(it for it in state.conditions if it.type is ConditionType.RECREATE_ALLOWED)
    error, seconds = state.last_error, (at - T0).total_seconds()
    return (
        f"{seconds // 3600:02.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}",
        str(phase(state)),
        str(state.generation),
        f"`{error.code}` ×{error.count}" if error else "",
        allowed.reason,
        allowed.message if allowed.reason not in ("Allowed", "InFlight") else "",
    )


def fresh(timings: Timings = NO_CANARY) -> State:
    """A workspace that was just started, in a run that minds the fleet."""
    state = State(workspace_id="ws-1", consults=True, inquires=True)
    return lifecycle.apply(state, enrolled(timings=timings), T0)


def silent(state: State) -> RegistrationStatus:
    return RegistrationStatus()


def varying(state: State) -> RegistrationStatus:
    """Each generation fails in another way."""
    code = ("token_invalid", "token_missing", "instance_not_ready")[state.generation % 3]
    return RegistrationStatus(
        calls=(RegisterCallCount(code=code, count=3, from_box=True, last_at=T0, source="10.0.0.1"),)
    )


def table(lines: list[Line]) -> str:
    head = ("after", "phase", "generation", "last_error", "RecreateAllowed", "why not")
    rows = [head, tuple("---" for _ in head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


STORIES = {
    "never": lambda: story(fresh(), never, seen=silent, until=WEEK),
    "varying": lambda: story(fresh(IMPATIENT), never, seen=varying, until=WEEK),
}


@pytest.mark.parametrize("name", STORIES)
def test_the_table_in_the_docs_is_what_happens(name: str) -> None:
    _, lines = STORIES[name]()
    assert table(lines) in DOCS.read_text(), f"docs/recovery.md should have:\n\n{table(lines)}"


def test_a_box_that_never_registers_is_recreated_twice_and_then_left_to_a_human() -> None:
    state, lines = STORIES["never"]()
    assert (phase(state), state.generation) == (Phase.FAILED, 3)
    assert state.budget.exhausted
    assert lines[-1][4] == "FailedAlike"
    assert lifecycle.wake_at(state) is None
    error = state.last_error
    assert error is not None
    assert (error.code, error.count) == ("never_called", 3)


def test_where_each_fails_in_another_way_the_budget_ends_it() -> None:
    state, lines = STORIES["varying"]()
    assert (phase(state), state.generation) == (Phase.FAILED, 4)
    assert lines[-1][4] == "BudgetSpent"


@pytest.mark.parametrize("human", ["start", "force"])
def test_a_human_takes_it_up_again_with_a_budget_of_its_own(human: str) -> None:
    state, _ = STORIES["never"]()
    at = T0 + WEEK
    if human == "start":
        state, request = asked(state, at, kind=RequestKind.START, requested_by="admin:alice")
    else:
        state, request = asked(state, at, requested_by="admin:alice", observed_generation=3, force=True)
    assert request.outcome is OutcomeKind.ACCEPTED
    assert (state.generation, state.budget.failures, state.budget.exhausted) == (4, (), False)


def test_a_box_that_came_online_once_in_between_is_a_new_trouble() -> None:
    def third_time_lucky(state: State, at: datetime) -> State:
        awaited = state.provisioning is not None and state.box.running_since is not None
        return registered(state, at) if awaited and state.generation == 3 else state

    state, lines = story(fresh(), third_time_lucky, seen=silent, until=WEEK)
    assert phase(state) is Phase.ONLINE
    assert state.budget.failures == ()
    assert [line[1] for line in lines][-1] == "online"
