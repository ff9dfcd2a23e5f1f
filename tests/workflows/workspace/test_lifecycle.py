"""The steps of a generation, with events in any order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    T0,
    after,
    awaiting,
    awaiting_address,
    box_event,
    due,
    never_registering,
    new,
    online,
    registered,
    send_request,
    step_done,
    time_passes,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import CanaryResult
from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import BoxEventKind, CanaryPolicy, ConditionStatus, ConditionType, Phase, Step
from workflows.workspace.events import BoxChanged, Tick
from workflows.workspace.state import State, Timings

WITH_CANARY = Timings(canary=CanaryPolicy.GENERATION)


def condition(state: State, type_: ConditionType) -> ConditionStatus:
    return next(it.status for it in state.conditions if it.type is type_)


def test_a_new_workspace_goes_through_its_steps_in_order() -> None:
    state, steps, phases = State(workspace_id="ws-1"), [], []
    while (step := due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
        phases.append(phase(state))
    assert steps == [Step.ENROLL, Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS]
    assert phases == [*[Phase.PROVISIONING] * 4, Phase.AWAITING_REGISTRATION]
    assert phase(registered(state, after(60))) is Phase.ONLINE


@given(st.permutations(["registered", "alive", "launch", "address"]))
def test_events_lead_online_in_any_order(order: list[str]) -> None:
    state = new()
    while due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    done = set[str]()
    for event in order:
        if event in ("launch", "address"):
            state = step_done(state, T0)
        else:
            state = box_event(state, BoxEventKind(event), after(1))
        done.add(event)
        assert (phase(state) is Phase.ONLINE) == (len(done) == 4)


def test_online_waits_for_the_canary_if_the_policy_sends_one() -> None:
    state = registered(awaiting(new(timings=WITH_CANARY)), after(60))
    assert phase(state) is Phase.AWAITING_REGISTRATION
    assert due(state, after(60)) is Step.CANARY
    state = lifecycle.apply(state, CanaryResult(answered=True), after(61))
    assert phase(state) is Phase.ONLINE
    assert condition(state, ConditionType.PROCESSING) is ConditionStatus.TRUE


def test_a_canary_that_is_not_answered_in_time_makes_the_workspace_degraded() -> None:
    state, at = registered(awaiting(new(timings=WITH_CANARY)), T0), T0
    while phase(state) is Phase.AWAITING_REGISTRATION:
        state = lifecycle.apply(state, CanaryResult(answered=False, code="canary_not_finished"), at)
        at = lifecycle.wake_at(state) or at
        state = lifecycle.apply(state, Tick(), at)
    assert phase(state) is Phase.DEGRADED
    assert at == after(minutes=5)
    assert condition(state, ConditionType.PROCESSING) is ConditionStatus.FALSE
    counts = {error.code: error.count for error in state.errors}
    assert counts["canary_not_finished"] > 3
    assert counts["not_processing"] == 1


def test_registering_without_heartbeats_has_its_own_code() -> None:
    state = box_event(awaiting(new()), BoxEventKind.REGISTERED, after(30))
    seen = RegistrationStatus(registered_at=after(30))
    state = time_passes(state, after(minutes=10), registration=seen)
    assert state.last_error is not None
    assert state.last_error.code == "not_beating"


def test_a_late_registration_brings_a_failed_workspace_online() -> None:
    state = registered(never_registering(), after(hours=6))
    assert phase(state) is Phase.ONLINE
    assert not state.exhausted
    assert state.last_error is None


def test_an_event_about_an_older_generation_changes_nothing() -> None:
    state = awaiting(send_request(online(), T0, observed_generation=1)[0])
    for kind in set(BoxEventKind) - {BoxEventKind.SUPERSEDED_CALL, BoxEventKind.ORPHAN}:
        assert box_event(state, kind, after(5), generation=1) == state


def test_an_event_about_a_newer_generation_reads_the_record() -> None:
    state = box_event(online(), BoxEventKind.REGISTERED, after(5), generation=2)
    assert due(state, after(5)) is Step.ENROLL


def test_missed_heartbeats_degrade_and_a_heartbeat_restores() -> None:
    state = box_event(online(), BoxEventKind.STALE, after(100))
    assert phase(state) is Phase.DEGRADED
    assert condition(state, ConditionType.HEARTBEAT_FRESH) is ConditionStatus.FALSE
    assert box_event(state, BoxEventKind.ALIVE, after(50)) == state  # an older event that arrives late
    assert phase(box_event(state, BoxEventKind.ALIVE, after(130))) is Phase.ONLINE


@pytest.mark.parametrize("timings", [NO_CANARY, WITH_CANARY])
def test_a_box_that_becomes_stale_before_it_is_online_misses_its_deadline(timings: Timings) -> None:
    state = awaiting(new(timings=timings))
    state = box_event(box_event(state, BoxEventKind.REGISTERED, after(5)), BoxEventKind.ALIVE, after(5))
    if timings is NO_CANARY:  # stale before its address was written
        state = box_event(box_event(awaiting_address(), BoxEventKind.REGISTERED, T0), BoxEventKind.ALIVE, T0)
        state = step_done(box_event(state, BoxEventKind.STALE, after(95)), after(95))
    else:
        state = box_event(state, BoxEventKind.STALE, after(95))
    assert phase(state) is Phase.AWAITING_REGISTRATION
    at = lifecycle.wake_at(state)
    assert at is not None
    state = time_passes(state, at)
    assert state.generation == 2
    assert state.last_error is not None
    assert state.last_error.code == "fell_silent"


def test_an_answer_after_the_canary_deadline_counts() -> None:
    state = registered(awaiting(new(timings=WITH_CANARY)), T0)
    state = lifecycle.apply(state, Tick(), after(minutes=5))
    assert phase(state) is Phase.DEGRADED
    state = lifecycle.apply(state, CanaryResult(answered=True), after(minutes=5, seconds=1))
    assert phase(state) is Phase.ONLINE


def test_a_delayed_heartbeat_event_leaves_the_canary_its_time() -> None:
    state = awaiting(new(timings=WITH_CANARY))
    for kind in (BoxEventKind.REGISTERED, BoxEventKind.ALIVE):
        state = lifecycle.apply(state, BoxChanged(kind=kind, generation=1, at=T0), after(minutes=6))
    assert due(state, after(minutes=6)) is Step.CANARY


def test_a_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    state = online()
    later = lifecycle.apply(state, Tick(), after(minutes=5))
    assert later.conditions == state.conditions
    stale = box_event(later, BoxEventKind.STALE, after(minutes=6))
    changed = {it.type for it in stale.conditions if it.last_transition_at == after(minutes=6)}
    assert changed == {ConditionType.HEARTBEAT_FRESH}
