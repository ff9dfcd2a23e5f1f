"""When a box that does not come online is recreated, when recreates end, and what the record says.

The tables in docs/recovery.md are compared with what happens here.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.documents import ROOT
from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    T0,
    due,
    enrolled,
    registered,
    send_request,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.diagnosis import RegisterCallCount, RegistrationStatus
from workflows.workspace.enums import ConditionType, Phase, Step
from workflows.workspace.events import Tick
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import State, Timings

DOCS = ROOT / "docs" / "recovery.md"
WEEK = timedelta(weeks=1)

SHORT_DEADLINE = replace(NO_CANARY, register_deadline=timedelta(minutes=1))

Line = tuple[str, str, str, str, str, str]
Box = Callable[[State, datetime], State]
"""What the box does when no step is due; the same state if it does nothing."""


def never(state: State, at: datetime) -> State:
    return state


def play(
    state: State, box: Box, *, seen: Callable[[State], RegistrationStatus], until: timedelta
) -> tuple[State, list[Line]]:
    """Let time pass; each change of the record is a line."""
    at, lines = T0, list[Line]()
    while True:
        while (step := due(state, at)) is not None:
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
        state = lifecycle.apply(state, Tick(), at)


def _line(state: State, at: datetime) -> Line:
    allowed = next(it for it in state.conditions if it.type is ConditionType.RECREATE_ALLOWED)
    error, seconds = state.last_error, (at - T0).total_seconds()
    return (
        f"{seconds // 3600:02.0f}:{seconds % 3600 // 60:02.0f}:{seconds % 60:02.0f}",
        str(phase(state)),
        str(state.generation),
        f"`{error.code}` ×{error.count}" if error else "",
        allowed.reason,
        allowed.message if allowed.reason not in ("Allowed", "InProgress") else "",
    )


def fresh(timings: Timings = NO_CANARY) -> State:
    """A workspace that has just started."""
    state = State(workspace_id="ws-1")
    return lifecycle.apply(state, enrolled(timings=timings), T0)


def no_calls(state: State) -> RegistrationStatus:
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


SCENARIOS = {
    "never": lambda: play(fresh(), never, seen=no_calls, until=WEEK),
    "varying": lambda: play(fresh(SHORT_DEADLINE), never, seen=varying, until=WEEK),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_table_in_the_docs_is_what_happens(name: str) -> None:
    _, lines = SCENARIOS[name]()
    assert table(lines) in DOCS.read_text(), f"docs/recovery.md should have:\n\n{table(lines)}"


@pytest.mark.parametrize("action", ["start", "force"])
def test_an_operator_retries_with_a_new_budget(action: str) -> None:
    state, _ = SCENARIOS["never"]()
    at = T0 + WEEK
    if action == "start":
        state, request = send_request(state, at, kind=RequestKind.START, requested_by="admin:alice")
    else:
        state, request = send_request(
            state, at, requested_by="admin:alice", observed_generation=3, force=True
        )
    assert request.outcome is OutcomeKind.ACCEPTED
    assert (state.generation, state.budget.failures, state.exhausted) == (4, (), False)


def test_a_box_that_comes_online_resets_the_failures() -> None:
    def third_time_lucky(state: State, at: datetime) -> State:
        awaited = state.provisioning is not None and state.box.running_since is not None
        return registered(state, at) if awaited and state.generation == 3 else state

    state, lines = play(fresh(), third_time_lucky, seen=no_calls, until=WEEK)
    assert phase(state) is Phase.ONLINE
    assert state.budget.failures == ()
    assert [line[1] for line in lines][-1] == "online"
