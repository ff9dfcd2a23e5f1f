"""Failing steps are retried or halt the workspace; recreates have a backoff and a budget."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import product

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    awaiting_address,
    due,
    failure,
    instance_of,
    new,
    online,
    permitted,
    registered,
    send_request,
    step_done,
)
from workflows.workspace import backoff, lifecycle, status
from workflows.workspace.conditions import phase
from workflows.workspace.contract import AddressResult, LaunchResult
from workflows.workspace.enums import Intent, Phase, Step
from workflows.workspace.events import StepFailed, Tick
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import State


def launching() -> State:
    state = new()
    while due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    return state


def refusal(step: Step) -> StepFailed:
    return replace(failure(step, code="VcpuLimitExceeded"), refused=True)


def test_a_definitive_capacity_error_moves_to_the_next_attempt() -> None:
    state = new()
    while due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    no = LaunchResult(capacity_code="InsufficientInstanceCapacity", capacity_message="none", offerings=2)
    state = lifecycle.apply(state, no, T0)
    assert (state.box.attempt, due(state, T0)) == (2, Step.LAUNCH)
    state = lifecycle.apply(state, no, T0)
    assert state.box.attempt == 3
    assert due(state, T0) is None  # all combinations were tried: wait before the next round
    at = lifecycle.wake_at(state)
    assert at is not None
    assert due(state, at) is Step.LAUNCH
    state = step_done(state, at)
    assert state.last_error is None


def test_orphan_instances_send_the_launch_back_to_the_fence() -> None:
    state = new()
    while due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    state = lifecycle.apply(state, LaunchResult(orphan_instances=(instance_of(9),)), T0)
    at = lifecycle.wake_at(state)
    assert at is not None
    assert due(state, at) is Step.FENCE


def test_an_instance_that_ends_before_it_runs_is_replaced_by_another_generation() -> None:
    state = lifecycle.apply(awaiting_address(), AddressResult(gone=True, detail="Client.InternalError"), T0)
    state = permitted(state, T0)
    [own] = state.requests
    assert (own.requested_by, own.outcome) == ("lifecycle", OutcomeKind.ACCEPTED)
    assert (state.generation, due(state, T0)) == (2, Step.OPEN)
    assert state.last_error is not None
    assert state.last_error.code == "instance_ended"


def test_instances_that_keep_ending_exhaust_the_recreates() -> None:
    state, at = awaiting_address(), T0
    for _ in range(20):
        while (step := due(state, at)) is not None and step is not Step.ADDRESS:
            state = step_done(state, at)
        if step is Step.ADDRESS:
            state = lifecycle.apply(state, AddressResult(gone=True, detail="Client.InternalError"), at)
        at = lifecycle.wake_at(state) or at
        state = lifecycle.apply(state, Tick(), at)
    assert state.generation == 3  # the second recreate failed like the first
    assert state.exhausted
    assert phase(state) is Phase.FAILED


@pytest.mark.parametrize("step", [Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS])
def test_a_retryable_failure_is_shown_counted_and_retried_with_growing_pauses(step: Step) -> None:
    state = new()
    while due(state, T0) is not step:
        state = step_done(state, T0)
    at, pauses = T0, []
    for _ in range(6):
        state = lifecycle.apply(state, failure(step), at)
        wake = lifecycle.wake_at(state)
        assert wake is not None
        assert due(state, at) is None
        pauses.append((wake - at).total_seconds())
        at = wake
        assert due(state, at) is step
    assert pauses == [5, 10, 20, 40, 60, 60]
    assert state.last_error is not None
    assert state.last_error.count == 6
    assert step_done(state, at).last_error is None


@pytest.mark.parametrize("step", [Step.LAUNCH, Step.ADDRESS])
def test_a_final_failure_halts_without_retries(step: Step) -> None:
    state = new()
    while due(state, T0) is not step:
        state = step_done(state, T0)
    state = lifecycle.apply(state, failure(step, code="InvalidParameterValue", retryable=False), T0)
    assert phase(state) is Phase.FAILED
    assert due(state, after(hours=24)) is None
    assert lifecycle.wake_at(state) is None
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.hint) == ("InvalidParameterValue", "fix it")


def test_a_refused_launch_recovers_within_a_minute_of_its_cause() -> None:
    state, at = launching(), T0
    for _ in range(8):
        state = lifecycle.apply(state, refusal(Step.LAUNCH), at)
        assert state.last_error is not None
        assert (state.last_error.code, state.last_error.retryable) == ("VcpuLimitExceeded", True)
        assert phase(state) is Phase.PROVISIONING
        wake = lifecycle.wake_at(state)
        assert wake is not None
        assert wake - at <= timedelta(seconds=60)
        at = wake
    assert due(state, at) is Step.LAUNCH
    assert step_done(state, at).last_error is None


def test_force_gives_up_a_refused_launch_and_no_other_that_has_not_run() -> None:
    ask = partial(send_request, requested_by="admin:alice", observed_generation=1)
    refused = lifecycle.apply(launching(), refusal(Step.LAUNCH), T0)
    for state, force in ((launching(), True), (refused, False)):
        assert ask(state, T0, force=force)[1].outcome is OutcomeKind.JOINED
    state, accepted = ask(refused, T0, force=True)
    assert accepted.outcome is OutcomeKind.ACCEPTED
    assert (state.generation, due(state, T0)) == (2, Step.OPEN)


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
def test_a_refused_launch_is_stopped_and_deleted_at_once(kind: RequestKind) -> None:
    state, _ = send_request(lifecycle.apply(launching(), refusal(Step.LAUNCH), T0), T0, kind=kind)
    assert due(state, T0) is Step.CLOSE


@pytest.mark.parametrize(
    ("kind", "intent"), [(RequestKind.STOP, Intent.STOP), (RequestKind.DELETE, Intent.DELETE)]
)
def test_a_termination_is_always_retried(kind: RequestKind, intent: Intent) -> None:
    state = step_done(send_request(online(), T0, kind=kind)[0], T0)
    state = lifecycle.apply(state, failure(Step.FENCE, code="OperationNotPermitted", retryable=False), T0)
    at = lifecycle.wake_at(state)
    assert at is not None
    assert due(state, at) is Step.FENCE
    assert state.intent is intent


def test_a_step_of_a_deletion_that_is_retried_says_so() -> None:
    state, _ = send_request(online(), T0, kind=RequestKind.DELETE)
    while due(state, T0) is not Step.REMOVE_ADDRESS:
        state = step_done(state, T0)
    state = lifecycle.apply(state, failure(Step.REMOVE_ADDRESS, retryable=False), T0)
    assert state.last_error is not None
    assert state.last_error.retryable
    assert "not retried" not in status.details(state, None, T0)
    assert "removing the DNS name; next attempt at" in status.details(state, None, T0)


def test_the_backoff_doubles_up_to_an_hour_within_its_jitter() -> None:
    for streak, number in product(range(1, 12), range(50)):
        base = min(timedelta(minutes=2) * 2 ** (streak - 1), timedelta(hours=1))
        pause = backoff.backoff(f"ws-{number}", streak)
        assert 0.8 * base <= pause <= 1.2 * base, streak
        assert pause == backoff.backoff(f"ws-{number}", streak)


def test_an_hour_online_resets_the_backoff() -> None:
    state, _ = send_request(online(), T0, observed_generation=1)
    state = registered(awaiting(state), T0)
    assert state.budget.streak == 1
    assert lifecycle.apply(state, Tick(), after(minutes=59)).budget.streak == 1
    assert lifecycle.apply(state, Tick(), after(minutes=60)).budget.streak == 0


def test_at_most_six_automatic_recreates_a_day() -> None:
    state, accepted, at = online(), 0, T0
    for hour in range(0, 23, 2):
        at = after(hours=hour + 1)
        state, request = send_request(state, at, observed_generation=state.generation)
        if request.outcome is OutcomeKind.ACCEPTED:
            accepted += 1
            state = registered(awaiting(state, at), at)
    assert accepted == 6
