"""Canaries to an idle agent: when they are sent, and what follows from no answer."""

from datetime import datetime

import pytest

from tests.workflows.workspace.scenarios import T0, after, awaiting, box_event, due, new, registered
from tests.workflows.workspace.test_processing import (
    ANSWERED,
    MISSED,
    error,
    processes,
    processing,
    self_requests,
    ticked,
    woken,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.enums import BoxEventKind, CanaryPolicy, ConditionStatus, Phase, Step
from workflows.workspace.events import StepFailed
from workflows.workspace.state import State, Timings

IDLE = Timings(canary=CanaryPolicy.IDLE)


def idling(*, at: datetime = T0) -> State:
    """Online under the idle policy, with its first canary answered."""
    state = registered(awaiting(new(timings=IDLE), at), at)
    assert due(state, at) is Step.CANARY
    return lifecycle.apply(state, ANSWERED, at)


def test_an_idle_agent_gets_another_canary_after_ten_minutes() -> None:
    state = idling()
    assert (phase(state), lifecycle.wake_at(state)) == (Phase.ONLINE, after(minutes=10))
    assert due(ticked(state, after(minutes=9.9)), after(minutes=9.9)) is None
    state = ticked(state, after(minutes=10))
    assert due(state, after(minutes=10)) is Step.CANARY
    assert state.box.canary_round == 1  # a new canary, with a message ID of its own
    assert phase(state) is Phase.ONLINE  # `online` does not wait for this one
    state = lifecycle.apply(state, ANSWERED, after(minutes=10.5))
    assert lifecycle.wake_at(state) == after(minutes=20.5)
    state = ticked(state, after(minutes=20.5))
    assert (due(state, after(minutes=20.5)), state.box.canary_round) == (Step.CANARY, 2)


def test_one_miss_only_changes_when_the_next_canary_is_sent() -> None:
    state = ticked(idling(), after(minutes=10))
    state = lifecycle.apply(state, MISSED, after(minutes=11))
    assert (phase(state), state.last_error) == (Phase.ONLINE, None)
    assert processing(state).status is ConditionStatus.TRUE
    assert due(state, after(minutes=11)) is None
    assert lifecycle.wake_at(state) == after(minutes=12)
    state = ticked(state, after(minutes=12))
    assert (due(state, after(minutes=12)), state.box.canary_round) == (Step.CANARY, 2)


def test_two_consecutive_misses_mean_an_unresponsive_agent() -> None:
    state = ticked(idling(), after(minutes=10))
    state = ticked(lifecycle.apply(state, MISSED, after(minutes=11)), after(minutes=12))
    state = lifecycle.apply(state, MISSED, after(minutes=13))
    assert phase(state) is Phase.DEGRADED
    assert processing(state).reason == "NotProcessing"
    found = error(state)
    assert found is not None
    assert MISSED.detail in found.message
    assert woken(state, until=after(minutes=15.9)).generation == 1
    assert ticked(state, after(minutes=16)).generation == 2


def test_an_answer_between_two_misses_resets_the_count() -> None:
    state = ticked(idling(), after(minutes=10))
    state = ticked(lifecycle.apply(state, MISSED, after(minutes=11)), after(minutes=12))
    state = ticked(lifecycle.apply(state, ANSWERED, after(minutes=12)), after(minutes=22))
    state = lifecycle.apply(state, MISSED, after(minutes=23))
    assert (phase(state), state.box.canary_misses) == (Phase.ONLINE, 1)


def test_an_answer_ends_the_unresponsive_state() -> None:
    state = ticked(idling(), after(minutes=10))
    state = ticked(lifecycle.apply(state, MISSED, after(minutes=11)), after(minutes=12))
    state = lifecycle.apply(state, MISSED, after(minutes=13))
    state = ticked(state, after(minutes=14))
    assert due(state, after(minutes=14)) is Step.CANARY  # it still gets canaries
    state = lifecycle.apply(state, ANSWERED, after(minutes=14.5))
    assert (phase(state), state.last_error) == (Phase.ONLINE, None)
    assert self_requests(woken(state, until=after(minutes=24))) == []


def test_a_stale_box_gets_no_canary_and_no_timer_loops() -> None:
    state = box_event(idling(), BoxEventKind.STALE, after(minutes=9))
    state = ticked(state, after(minutes=10))
    assert due(state, after(minutes=10)) is None
    assert lifecycle.wake_at(state) is None
    state = box_event(state, BoxEventKind.ALIVE, after(minutes=12))
    assert due(state, after(minutes=12)) is Step.CANARY


def test_a_canary_that_cannot_be_sent_is_retried_later() -> None:
    state = ticked(idling(), after(minutes=10))
    failed = StepFailed(step=Step.CANARY, code="database_unavailable", message="", hint="", retryable=True)
    state = lifecycle.apply(state, failed, after(minutes=10))
    at = lifecycle.wake_at(state)
    assert at is not None
    assert at > after(minutes=10)
    assert due(state, after(minutes=10)) is None
    assert due(state, at) is Step.CANARY
    assert phase(state) is Phase.ONLINE


@pytest.mark.parametrize("policy", [CanaryPolicy.OFF, CanaryPolicy.GENERATION])
def test_other_policies_send_no_idle_canary(policy: CanaryPolicy) -> None:
    state = registered(awaiting(new(timings=Timings(canary=policy))), T0)
    if policy is CanaryPolicy.GENERATION:
        state = lifecycle.apply(state, ANSWERED, T0)
    assert (phase(state), lifecycle.wake_at(state)) == (Phase.ONLINE, None)
    for at in (after(minutes=10), after(hours=5)):
        assert due(ticked(state, at), at) is None


def test_an_agent_that_has_just_processed_work_is_not_idle() -> None:
    state = processes(idling(), after(minutes=9))
    assert due(ticked(state, after(minutes=10)), after(minutes=10)) is None
