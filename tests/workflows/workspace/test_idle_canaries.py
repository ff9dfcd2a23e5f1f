"""The question to an agent that has been idle: when it is asked, and what follows from no answer."""

from datetime import datetime

import pytest

from tests.workflows.workspace.scenarios import T0, after, awaiting, heard, new, registered
from tests.workflows.workspace.test_processing import (
    ANSWERED,
    MISSED,
    error,
    own_requests,
    processing,
    ticked,
    well,
    woken,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxEventKind, StepFailed
from workflows.workspace.state import CanaryPolicy, ConditionStatus, Phase, State, Step, Timings

IDLE = Timings(canary=CanaryPolicy.IDLE)


def idling(*, at: datetime = T0) -> State:
    """Online under the idle policy, its first question answered at that time."""
    state = registered(awaiting(new(timings=IDLE), at), at)
    assert lifecycle.due(state, at) is Step.CANARY
    return lifecycle.apply(state, ANSWERED, at)


def test_an_idle_agent_is_asked_again_after_ten_minutes() -> None:
    state = idling()
    assert (phase(state), lifecycle.wake_at(state)) == (Phase.ONLINE, after(minutes=10))
    assert lifecycle.due(ticked(state, after(minutes=9.9)), after(minutes=9.9)) is None
    state = ticked(state, after(minutes=10))
    assert lifecycle.due(state, after(minutes=10)) is Step.CANARY
    assert state.box.canary_round == 1  # a question of its own, which an agent can tell from the first
    assert phase(state) is Phase.ONLINE  # it does not wait for this one
    state = lifecycle.apply(state, ANSWERED, after(minutes=10.5))
    assert lifecycle.wake_at(state) == after(minutes=20.5)
    state = ticked(state, after(minutes=20.5))
    assert (lifecycle.due(state, after(minutes=20.5)), state.box.canary_round) == (Step.CANARY, 2)


def test_one_miss_changes_nothing_but_the_next_question() -> None:
    state = ticked(idling(), after(minutes=10))
    state = lifecycle.apply(state, MISSED, after(minutes=11))
    assert (phase(state), state.last_error) == (Phase.ONLINE, None)
    assert processing(state).status is ConditionStatus.TRUE
    assert lifecycle.due(state, after(minutes=11)) is None
    assert lifecycle.wake_at(state) == after(minutes=12)
    state = ticked(state, after(minutes=12))
    assert (lifecycle.due(state, after(minutes=12)), state.box.canary_round) == (Step.CANARY, 2)


def test_two_misses_in_a_row_are_a_dead_agent() -> None:
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


def test_an_answer_between_two_misses_begins_the_count_anew() -> None:
    state = ticked(idling(), after(minutes=10))
    state = ticked(lifecycle.apply(state, MISSED, after(minutes=11)), after(minutes=12))
    state = ticked(lifecycle.apply(state, ANSWERED, after(minutes=12)), after(minutes=22))
    state = lifecycle.apply(state, MISSED, after(minutes=23))
    assert (phase(state), state.box.canary_misses) == (Phase.ONLINE, 1)


def test_an_answer_brings_a_dead_agent_back() -> None:
    state = ticked(idling(), after(minutes=10))
    state = ticked(lifecycle.apply(state, MISSED, after(minutes=11)), after(minutes=12))
    state = lifecycle.apply(state, MISSED, after(minutes=13))
    state = ticked(state, after(minutes=14))
    assert lifecycle.due(state, after(minutes=14)) is Step.CANARY  # it is still asked
    state = lifecycle.apply(state, ANSWERED, after(minutes=14.5))
    assert (phase(state), state.last_error) == (Phase.ONLINE, None)
    assert own_requests(woken(state, until=after(minutes=24))) == []


def test_a_silent_box_is_not_asked_and_nothing_spins() -> None:
    state = heard(idling(), BoxEventKind.STALE, after(minutes=9))
    state = ticked(state, after(minutes=10))
    assert lifecycle.due(state, after(minutes=10)) is None
    assert lifecycle.wake_at(state) is None
    state = heard(state, BoxEventKind.ALIVE, after(minutes=12))
    assert lifecycle.due(state, after(minutes=12)) is Step.CANARY


def test_a_question_that_cannot_be_asked_is_tried_again_later() -> None:
    state = ticked(idling(), after(minutes=10))
    failed = StepFailed(step=Step.CANARY, code="database_unavailable", message="", hint="", retryable=True)
    state = lifecycle.apply(state, failed, after(minutes=10))
    at = lifecycle.wake_at(state)
    assert at is not None
    assert at > after(minutes=10)
    assert lifecycle.due(state, after(minutes=10)) is None
    assert lifecycle.due(state, at) is Step.CANARY
    assert phase(state) is Phase.ONLINE


@pytest.mark.parametrize("policy", [CanaryPolicy.OFF, CanaryPolicy.GENERATION])
def test_other_policies_never_ask_again(policy: CanaryPolicy) -> None:
    state = registered(awaiting(new(timings=Timings(canary=policy))), T0)
    if policy is CanaryPolicy.GENERATION:
        state = lifecycle.apply(state, ANSWERED, T0)
    assert (phase(state), lifecycle.wake_at(state)) == (Phase.ONLINE, None)
    for at in (after(minutes=10), after(hours=5)):
        assert lifecycle.due(ticked(state, at), at) is None


def test_an_agent_that_has_just_processed_work_is_not_idle() -> None:
    state = well(idling(), after(minutes=9))
    assert lifecycle.due(ticked(state, after(minutes=10)), after(minutes=10)) is None
