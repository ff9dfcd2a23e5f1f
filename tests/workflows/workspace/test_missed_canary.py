"""A missed canary is sent again, and replaces the box only if the agent stays unresponsive."""

from datetime import timedelta

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    box_event,
    due,
    new,
    registered,
    time_passes,
)
from workflows.workspace import conditions, lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import CanaryResult
from workflows.workspace.enums import BoxEventKind, CanaryPolicy, ConditionType, Phase, Step
from workflows.workspace.state import State, Timings

WITH_CANARY = Timings(canary=CanaryPolicy.GENERATION)
NO_ANSWER = CanaryResult(answered=False, code="canary_not_finished", detail="no answer within 60 s")
ANSWERED = CanaryResult(answered=True)


def missed() -> State:
    """A box that is alive and has not answered its canary by the deadline."""
    state = registered(awaiting(new(timings=WITH_CANARY)), T0)
    return time_passes(lifecycle.apply(state, NO_ANSWER, after(1)), after(minutes=5))


def processing_reason(state: State) -> str:
    return next(it.reason for it in state.conditions if it.type is ConditionType.PROCESSING)


def test_it_degrades_the_workspace_and_says_why() -> None:
    state = missed()
    assert (phase(state), processing_reason(state)) == (Phase.DEGRADED, "CanaryMissed")
    blocking = conditions.blocking_condition(state)
    assert blocking is not None
    assert blocking.reason == "CanaryMissed"


def test_it_is_sent_again_and_an_answer_brings_the_box_online() -> None:
    state, at = missed(), after(minutes=5)
    assert due(state, at) is Step.CANARY
    state = lifecycle.apply(state, NO_ANSWER, at)
    again = lifecycle.wake_at(state)
    assert again is not None
    assert timedelta() < again - at <= timedelta(minutes=1)
    state = lifecycle.apply(state, ANSWERED, again)
    assert (phase(state), state.generation, state.errors) == (Phase.ONLINE, 1, ())


@pytest.mark.parametrize("at", [after(2), after(minutes=6)])
def test_processed_work_counts_as_an_answer(at: object) -> None:
    state = missed() if at == after(minutes=6) else registered(awaiting(new(timings=WITH_CANARY)), T0)
    state = box_event(state, BoxEventKind.PROCESSING, after(minutes=6))
    assert (phase(state), state.errors) == (Phase.ONLINE, ())
    assert due(state, after(minutes=6)) is None


def test_an_agent_that_stays_unresponsive_gets_another_box() -> None:
    state = missed()
    assert time_passes(state, after(minutes=7.9)).generation == 1
    assert time_passes(state, after(minutes=8)).generation == 2


def test_two_recreates_that_miss_it_need_an_operator() -> None:
    state, at = missed(), after(minutes=5)
    for _ in range(100):
        if due(state, at) is Step.CANARY:
            state = lifecycle.apply(state, NO_ANSWER, at)
        elif due(state, at) is not None:
            state = registered(awaiting(state, at), at)
        elif state.exhausted:
            break
        else:
            at = lifecycle.wake_at(state) or at
            state = time_passes(state, at)
    assert (state.generation, state.exhausted, phase(state)) == (3, True, Phase.DEGRADED)
