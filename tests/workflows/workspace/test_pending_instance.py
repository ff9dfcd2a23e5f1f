"""An instance that EC2 leaves pending is replaced after its deadline, or when an operator forces it."""

from dataclasses import replace

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    awaiting_address,
    due,
    registered,
    send_request,
    step_done,
    time_passes,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.enums import Phase, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.requests import OutcomeKind
from workflows.workspace.state import State

DEADLINE = after(minutes=10)


def waits(code: str) -> StepFailed:
    return StepFailed(step=Step.ADDRESS, code=code, message="waits", hint="wait", retryable=True)


def pending() -> State:
    """Launched at T0; EC2 has not started it."""
    return lifecycle.apply(awaiting_address(), waits("instance_pending"), after(60))


def test_it_is_replaced_after_the_deadline_and_the_record_says_why() -> None:
    state = pending()
    assert time_passes(state, after(minutes=9.9)).generation == 1
    state = time_passes(state, DEADLINE)
    assert state.generation == 2
    assert state.last_error is not None
    assert state.last_error.code == "instance_not_running"
    assert "still pending 10 min after its launch" in state.last_error.message


def test_the_workflow_wakes_up_for_the_deadline() -> None:
    state = lifecycle.apply(pending(), waits("instance_pending"), after(minutes=9.95))
    assert lifecycle.wake_at(state) == DEADLINE


def test_it_ends_online_if_it_runs_in_time() -> None:
    state = registered(awaiting(step_done(pending(), after(minutes=9)), after(minutes=9)), after(minutes=9))
    state = time_passes(state, after(minutes=30))
    assert (phase(state), state.generation) == (Phase.ONLINE, 1)


@pytest.mark.parametrize("code", ["route53_unreachable", "Throttling"])
def test_a_running_instance_that_waits_for_its_name_is_not_replaced(code: str) -> None:
    state = lifecycle.apply(awaiting_address(), waits(code), after(60))
    state = time_passes(state, after(minutes=30))
    assert (state.generation, due(state, after(minutes=30))) == (1, Step.ADDRESS)


def test_an_operator_forces_another_generation_before_the_deadline() -> None:
    state, forced = send_request(
        pending(), after(120), requested_by="admin:alice", observed_generation=1, force=True
    )
    assert (forced.outcome, state.generation) == (OutcomeKind.ACCEPTED, 2)
    _, joined = send_request(pending(), after(120), requested_by="admin:alice", observed_generation=1)
    assert joined.outcome is OutcomeKind.JOINED


def test_without_an_instance_force_joins() -> None:
    state = replace(pending(), box=replace(pending().box, instance_id=None), retry=None, errors=())
    _, forced = send_request(state, T0, requested_by="admin:alice", observed_generation=1, force=True)
    assert forced.outcome is OutcomeKind.JOINED
