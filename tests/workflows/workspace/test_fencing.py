"""When an earlier box is confirmed gone."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    NOTHING_SEEN,
    T0,
    after,
    due,
    instance_of,
    online,
    send_request,
)
from workflows.workspace import lifecycle
from workflows.workspace.contract import FenceObserved, GenerationOpened, MissingInstance
from workflows.workspace.enums import Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.fence import proven_gone, update_fence
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Fence, State

BOX = instance_of(1)


def alive() -> FenceObserved:
    return FenceObserved(terminated=(), alive=(BOX,), missing=())


def missing(launched_minutes_ago: float) -> FenceObserved:
    launched = T0 - timedelta(minutes=launched_minutes_ago)
    return FenceObserved(terminated=(), alive=(), missing=(MissingInstance(key=BOX, launched_at=launched),))


def fencing_state() -> State:
    state, _ = send_request(online(), T0, observed_generation=1)
    opened = GenerationOpened(generation=state.generation, timings=state.timings)
    return lifecycle.apply(state, opened, T0)


def test_an_instance_is_gone_after_three_misses_within_a_minute() -> None:
    fence = Fence()
    for seconds in (0, 20, 40):
        fence = update_fence(fence, missing(10), after(seconds))
        assert proven_gone(fence, after(seconds)) == ()
    fence = update_fence(fence, missing(10), after(60))
    assert proven_gone(fence, after(60)) == (BOX,)


def test_two_misses_are_never_enough() -> None:
    fence = update_fence(Fence(), missing(10), T0)
    fence = update_fence(fence, missing(10), after(hours=1))
    assert proven_gone(fence, after(hours=1)) == ()


def test_no_miss_counts_within_five_minutes_of_the_launch() -> None:
    fence = Fence()
    for seconds in range(0, 240, 20):
        fence = update_fence(fence, missing(0.5), after(seconds))
    assert proven_gone(fence, after(240)) == ()
    assert proven_gone(fence, after(271)) == (BOX,)


def test_an_instance_that_shows_up_again_starts_over() -> None:
    fence = Fence()
    for seconds, seen in ((0, missing(10)), (40, missing(10)), (60, alive()), (80, missing(10))):
        fence = update_fence(fence, seen, after(seconds))
    assert proven_gone(fence, after(100)) == ()


@given(st.lists(st.sampled_from(["alive", "missing"]), max_size=30))
def test_a_launch_is_due_only_once_the_fence_is_confirmed(polls: list[str]) -> None:
    state, at = fencing_state(), T0
    for poll in polls:
        assert due(state, at) in (Step.FENCE, None)
        state = lifecycle.apply(state, alive() if poll == "alive" else missing(10), at)
        at = lifecycle.wake_at(state) or at
    assert due(state, at) is Step.FENCE
    state = lifecycle.apply(state, NOTHING_SEEN, at)
    assert due(state, at) is Step.LAUNCH


def unconfirmed() -> State:
    state, at = fencing_state(), T0
    while not state.is_fence_unconfirmed(at):
        state = lifecycle.apply(state, alive(), at)
        at = lifecycle.wake_at(state) or at
    return lifecycle.apply(state, alive(), at)


def test_ten_minutes_without_confirmation_are_an_error_and_retries_continue() -> None:
    state = unconfirmed()
    assert state.last_error is not None
    assert state.last_error.code == "fence_unconfirmed"
    assert state.last_error.retryable
    at = lifecycle.wake_at(state)
    assert at is not None
    assert due(state, at) is Step.FENCE


def test_only_an_operator_can_declare_that_instance_dead() -> None:
    state, at = unconfirmed(), after(minutes=11)
    for who, instance in (("watchdog", BOX), ("admin:bob", instance_of(7))):
        _, request = send_request(
            state, at, kind=RequestKind.DECLARE_DEAD, requested_by=who, instance_id=instance
        )
        assert request.outcome is OutcomeKind.REJECTED
    state, request = send_request(
        state, at, kind=RequestKind.DECLARE_DEAD, requested_by="admin:bob", instance_id=BOX
    )
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.fence.declared_dead == (BOX,)
    assert due(state, at) is Step.FENCE
    state = lifecycle.apply(state, NOTHING_SEEN, at)
    assert due(state, at) is Step.LAUNCH
    assert state.last_error is None


def test_a_box_cannot_be_declared_dead_before_ten_minutes() -> None:
    state = lifecycle.apply(fencing_state(), alive(), T0)
    _, request = send_request(
        state, after(minutes=1), kind=RequestKind.DECLARE_DEAD, requested_by="admin", instance_id=BOX
    )
    assert request.outcome is OutcomeKind.REJECTED


def test_a_declaration_during_a_poll_counts_for_the_next_one() -> None:
    state, at = unconfirmed(), after(minutes=11)
    state, _ = send_request(state, at, kind=RequestKind.DECLARE_DEAD, requested_by="admin", instance_id=BOX)
    state = lifecycle.apply(state, alive(), at)  # this poll began before the declaration
    assert state.fence.declared_dead == (BOX,)


def test_a_box_whose_termination_fails_for_ten_minutes_may_be_declared_dead() -> None:
    state, at = fencing_state(), T0
    while at < after(minutes=11):
        refused = StepFailed(
            step=Step.FENCE,
            code="OperationNotPermitted",
            message="protected",
            hint="check it",
            retryable=True,
        )
        state = lifecycle.apply(state, refused, at)
        at = lifecycle.wake_at(state) or at
    _, request = send_request(state, at, kind=RequestKind.DECLARE_DEAD, requested_by="admin", instance_id=BOX)
    assert request.outcome is OutcomeKind.ACCEPTED
