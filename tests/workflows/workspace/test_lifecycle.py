"""The way of a generation, with facts in whatever order they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    T0,
    after,
    asked,
    awaiting,
    awaiting_address,
    heard,
    never_registering,
    new,
    online,
    registered,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxChanged, BoxEventKind, CanaryResult
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import (
    CanaryPolicy,
    ConditionStatus,
    ConditionType,
    Phase,
    State,
    Step,
    Timings,
)

WITH_CANARY = Timings(canary=CanaryPolicy.GENERATION)


def condition(state: State, type_: ConditionType) -> ConditionStatus:
    return next(it.status for it in state.conditions if it.type is type_)


def test_a_new_workspace_goes_through_its_steps_in_order() -> None:
    state, steps, phases = State(workspace_id="ws-1"), [], []
    while (step := lifecycle.due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
        phases.append(phase(state))
    assert steps == [Step.ENROLL, Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS]
    assert phases == [*[Phase.PROVISIONING] * 4, Phase.AWAITING_REGISTRATION]
    assert phase(registered(state, after(60))) is Phase.ONLINE


@given(st.permutations(["registered", "alive", "launch", "address"]))
def test_facts_lead_online_in_whatever_order_they_come(order: list[str]) -> None:
    state = new()
    while lifecycle.due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    done = set[str]()
    for fact in order:
        if fact in ("launch", "address"):
            state = step_done(state, T0)
        else:
            state = heard(state, BoxEventKind(fact), after(1))
        done.add(fact)
        assert (phase(state) is Phase.ONLINE) == (len(done) == 4)


def test_online_waits_for_the_canary_where_the_policy_asks() -> None:
    state = registered(awaiting(new(timings=WITH_CANARY)), after(60))
    assert phase(state) is Phase.AWAITING_REGISTRATION
    assert lifecycle.due(state, after(60)) is Step.CANARY
    state = lifecycle.apply(state, CanaryResult(answered=True), after(61))
    assert phase(state) is Phase.ONLINE
    assert condition(state, ConditionType.PROCESSING) is ConditionStatus.TRUE


def test_a_canary_that_is_not_answered_in_time_makes_the_workspace_degraded() -> None:
    state, at = registered(awaiting(new(timings=WITH_CANARY)), T0), T0
    while phase(state) is Phase.AWAITING_REGISTRATION:
        state = lifecycle.apply(state, CanaryResult(answered=False, code="canary_not_finished"), at)
        at = lifecycle.wake_at(state) or at
        state = lifecycle.apply(state, lifecycle.Tick(), at)
    assert phase(state) is Phase.DEGRADED
    assert at == after(minutes=5)
    assert condition(state, ConditionType.PROCESSING) is ConditionStatus.FALSE
    assert state.last_error is not None
    assert state.last_error.code == "canary_not_finished"
    assert state.last_error.count > 3


def test_a_missed_registration_ends_the_flight_and_the_lifecycle_asks_itself() -> None:
    state = awaiting(new())
    assert lifecycle.wake_at(state) == after(minutes=10)
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=10))
    assert state.last_error is not None
    assert state.last_error.code == "not_registered"
    assert [(it.requested_by, it.outcome) for it in state.requests] == [("lifecycle", OutcomeKind.ACCEPTED)]
    assert state.generation == 2


def test_registering_without_beating_is_told_apart() -> None:
    state = heard(awaiting(new()), BoxEventKind.REGISTERED, after(30))
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=10))
    assert state.last_error is not None
    assert state.last_error.code == "not_beating"


def test_what_keeps_failing_says_so_while_the_workspace_is_recreated() -> None:
    state = lifecycle.apply(awaiting(new()), lifecycle.Tick(), after(minutes=10))
    state = awaiting(state, after(minutes=11))
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=21))
    error = state.last_error
    assert error is not None
    assert (error.code, error.count, error.first_at) == ("not_registered", 2, after(minutes=10))
    state = registered(awaiting(state, after(minutes=25)), after(minutes=26))
    assert state.last_error is None


def test_a_box_that_never_registers_is_recreated_three_times_then_waits_for_a_human() -> None:
    state = never_registering()
    assert phase(state) is Phase.FAILED
    assert state.budget.exhausted
    assert state.generation == 4
    assert condition(state, ConditionType.RECREATE_ALLOWED) is ConditionStatus.FALSE


def test_a_late_registration_is_welcome_in_failed() -> None:
    state = registered(never_registering(), after(hours=6))
    assert phase(state) is Phase.ONLINE
    assert not state.budget.exhausted
    assert state.last_error is None


def test_a_fact_about_an_older_generation_changes_nothing() -> None:
    state = awaiting(asked(online(), T0, observed_generation=1)[0])
    for kind in set(BoxEventKind) - {BoxEventKind.SUPERSEDED_CALL, BoxEventKind.ORPHAN}:
        assert heard(state, kind, after(5), generation=1) == state


def test_a_fact_about_a_newer_generation_makes_it_read_the_record() -> None:
    state = heard(online(), BoxEventKind.REGISTERED, after(5), generation=2)
    assert lifecycle.due(state, after(5)) is Step.ENROLL


def test_silence_degrades_and_a_beat_brings_back() -> None:
    state = heard(online(), BoxEventKind.STALE, after(100))
    assert phase(state) is Phase.DEGRADED
    assert condition(state, ConditionType.HEARTBEAT_FRESH) is ConditionStatus.FALSE
    assert heard(state, BoxEventKind.ALIVE, after(50)) == state  # an older fact, come late
    assert phase(heard(state, BoxEventKind.ALIVE, after(130))) is Phase.ONLINE


@pytest.mark.parametrize("timings", [NO_CANARY, WITH_CANARY])
def test_a_box_that_falls_silent_before_it_is_online_misses_its_deadline(timings: Timings) -> None:
    state = awaiting(new(timings=timings))
    state = heard(heard(state, BoxEventKind.REGISTERED, after(5)), BoxEventKind.ALIVE, after(5))
    if timings is NO_CANARY:  # silent before its address was written
        state = heard(heard(awaiting_address(), BoxEventKind.REGISTERED, T0), BoxEventKind.ALIVE, T0)
        state = step_done(heard(state, BoxEventKind.STALE, after(95)), after(95))
    else:
        state = heard(state, BoxEventKind.STALE, after(95))
    assert phase(state) is Phase.AWAITING_REGISTRATION
    at = lifecycle.wake_at(state)
    assert at is not None
    state = lifecycle.apply(state, lifecycle.Tick(), at)
    assert state.generation == 2
    assert state.last_error is not None
    assert state.last_error.code == "fell_silent"


def test_an_answer_that_comes_after_the_canarys_deadline_counts() -> None:
    state = registered(awaiting(new(timings=WITH_CANARY)), T0)
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=5))
    assert phase(state) is Phase.DEGRADED
    state = lifecycle.apply(state, CanaryResult(answered=True), after(minutes=5, seconds=1))
    assert phase(state) is Phase.ONLINE


def test_a_beat_that_is_heard_of_late_leaves_the_canary_its_time() -> None:
    state = awaiting(new(timings=WITH_CANARY))
    for kind in (BoxEventKind.REGISTERED, BoxEventKind.ALIVE):
        state = lifecycle.apply(state, BoxChanged(kind=kind, generation=1, at=T0), after(minutes=6))
    assert lifecycle.due(state, after(minutes=6)) is Step.CANARY


def test_stop_closes_and_fences_and_delete_removes_the_address_too() -> None:
    for kind, steps, last in (
        (RequestKind.STOP, [Step.CLOSE, Step.FENCE], Phase.STOPPED),
        (RequestKind.DELETE, [Step.CLOSE, Step.FENCE, Step.REMOVE_ADDRESS], Phase.DELETED),
    ):
        state, _ = asked(online(), T0, kind=kind)
        done = []
        while (step := lifecycle.due(state, T0)) is not None:
            done.append(step)
            state = step_done(state, T0)
        assert done == steps
        assert phase(state) is last


def test_a_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    state = online()
    later = lifecycle.apply(state, lifecycle.Tick(), after(minutes=5))
    assert later.conditions == state.conditions
    silent = heard(later, BoxEventKind.STALE, after(minutes=6))
    changed = {it.type for it in silent.conditions if it.last_transition_at == after(minutes=6)}
    assert changed == {ConditionType.HEARTBEAT_FRESH}
