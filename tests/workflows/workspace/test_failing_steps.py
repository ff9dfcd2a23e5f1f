"""Steps that fail are tried again, given up, or told to a human; recreates are spaced out and budgeted."""

from datetime import timedelta

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    asked,
    awaiting,
    awaiting_address,
    failure,
    instance_of,
    new,
    online,
    registered,
    step_done,
)
from workflows.workspace import backoff, lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import AddressResult, LaunchResult
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Intent, Phase, Step


def test_a_definitive_capacity_error_moves_to_the_next_attempt() -> None:
    state = new()
    while lifecycle.due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    no = LaunchResult(capacity_code="InsufficientInstanceCapacity", capacity_message="none", offerings=2)
    state = lifecycle.apply(state, no, T0)
    assert (state.box.attempt, lifecycle.due(state, T0)) == (2, Step.LAUNCH)
    state = lifecycle.apply(state, no, T0)
    assert state.box.attempt == 3
    assert lifecycle.due(state, T0) is None  # all were tried: a pause before the next round
    at = lifecycle.wake_at(state)
    assert at is not None
    assert lifecycle.due(state, at) is Step.LAUNCH
    state = step_done(state, at)
    assert state.last_error is None


def test_strangers_under_the_tag_send_the_launch_back_to_the_fence() -> None:
    state = new()
    while lifecycle.due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    state = lifecycle.apply(state, LaunchResult(orphan_instances=(instance_of(9),)), T0)
    at = lifecycle.wake_at(state)
    assert at is not None
    assert lifecycle.due(state, at) is Step.FENCE


def test_an_instance_that_ends_before_it_runs_is_replaced_by_another_generation() -> None:
    state = lifecycle.apply(awaiting_address(), AddressResult(gone=True, detail="Client.InternalError"), T0)
    [own] = state.requests
    assert (own.requested_by, own.outcome) == ("lifecycle", OutcomeKind.ACCEPTED)
    assert (state.generation, lifecycle.due(state, T0)) == (2, Step.OPEN)
    assert state.last_error is not None
    assert state.last_error.code == "instance_ended"


def test_instances_that_keep_ending_are_not_launched_without_end() -> None:
    state, at = awaiting_address(), T0
    for _ in range(20):
        while (step := lifecycle.due(state, at)) is not None and step is not Step.ADDRESS:
            state = step_done(state, at)
        if step is Step.ADDRESS:
            state = lifecycle.apply(state, AddressResult(gone=True, detail="Client.InternalError"), at)
        at = lifecycle.wake_at(state) or at
        state = lifecycle.apply(state, lifecycle.Tick(), at)
    assert state.generation == 4
    assert state.budget.exhausted
    assert phase(state) is Phase.FAILED


@pytest.mark.parametrize("step", [Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS])
def test_a_passing_failure_is_shown_counted_and_tried_again_with_growing_pauses(step: Step) -> None:
    state = new()
    while lifecycle.due(state, T0) is not step:
        state = step_done(state, T0)
    at, pauses = T0, []
    for _ in range(6):
        state = lifecycle.apply(state, failure(step), at)
        wake = lifecycle.wake_at(state)
        assert wake is not None
        assert lifecycle.due(state, at) is None
        pauses.append((wake - at).total_seconds())
        at = wake
        assert lifecycle.due(state, at) is step
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert state.last_error is not None
    assert state.last_error.count == 6
    assert step_done(state, at).last_error is None


@pytest.mark.parametrize("step", [Step.LAUNCH, Step.ADDRESS])
def test_a_refusal_for_good_stops_at_once_without_a_storm(step: Step) -> None:
    state = new()
    while lifecycle.due(state, T0) is not step:
        state = step_done(state, T0)
    state = lifecycle.apply(state, failure(step, code="UnauthorizedOperation", retryable=False), T0)
    assert phase(state) is Phase.FAILED
    assert lifecycle.due(state, after(hours=24)) is None
    assert lifecycle.wake_at(state) is None
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.hint) == ("UnauthorizedOperation", "mend it")


@pytest.mark.parametrize(
    ("kind", "intent"), [(RequestKind.STOP, Intent.STOP), (RequestKind.DELETE, Intent.DELETE)]
)
def test_a_termination_is_never_given_up(kind: RequestKind, intent: Intent) -> None:
    state = step_done(asked(online(), T0, kind=kind)[0], T0)
    state = lifecycle.apply(state, failure(Step.FENCE, code="OperationNotPermitted", retryable=False), T0)
    at = lifecycle.wake_at(state)
    assert at is not None
    assert lifecycle.due(state, at) is Step.FENCE
    assert state.intent is intent


@pytest.mark.parametrize("streak", range(1, 12))
def test_spacing_doubles_up_to_an_hour_within_its_jitter(streak: int) -> None:
    base = min(timedelta(minutes=2) * 2 ** (streak - 1), timedelta(hours=1))
    for number in range(50):
        spacing = backoff.backoff(f"ws-{number}", streak)
        assert 0.8 * base <= spacing <= 1.2 * base
        assert spacing == backoff.backoff(f"ws-{number}", streak)


def test_an_hour_online_starts_the_spacing_over() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = registered(awaiting(state), T0)
    assert state.budget.streak == 1
    assert lifecycle.apply(state, lifecycle.Tick(), after(minutes=59)).budget.streak == 1
    assert lifecycle.apply(state, lifecycle.Tick(), after(minutes=60)).budget.streak == 0


def test_six_recreates_in_a_day_are_the_most() -> None:
    state, accepted, at = online(), 0, T0
    for hour in range(0, 23, 2):
        at = after(hours=hour + 1)
        state, request = asked(state, at, observed_generation=state.generation)
        if request.outcome is OutcomeKind.ACCEPTED:
            accepted += 1
            state = registered(awaiting(state, at), at)
    assert accepted == 6
