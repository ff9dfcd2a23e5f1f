"""The way of a generation, with facts in whatever order they come."""

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.workflows.stories import (
    NO_CANARY,
    NOTHING_SEEN,
    T0,
    after,
    asked,
    awaiting,
    enrolled,
    heard,
    instance_of,
    new,
    online,
    registered,
    step_done,
)
from workflows import conditions, lifecycle, recovery
from workflows.conditions import phase
from workflows.facts import (
    AddressResult,
    BoxChanged,
    BoxFactKind,
    CanaryResult,
    Enrolled,
    GenerationOpened,
    LaunchResult,
    StepFailed,
)
from workflows.requests import OutcomeKind, RequestKind
from workflows.state import CanaryPolicy, ConditionStatus, ConditionType, Intent, Phase, State, Step, Timings

WITH_CANARY = Timings(canary=CanaryPolicy.GENERATION)


def condition(state: State, type_: ConditionType) -> ConditionStatus:
    return next(it.status for it in state.conditions if it.type is type_)


def failure(step: Step, *, code: str = "AnyCode", retryable: bool = True) -> StepFailed:
    return StepFailed(step=step, code=code, message="it went wrong", hint="mend it", retryable=retryable)


def test_a_new_workspace_goes_through_its_steps_in_order() -> None:
    state, steps, phases = State(workspace_id="ws-1"), [], []
    while (step := lifecycle.due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
        phases.append(phase(state))
    assert steps == [Step.ENROLL, Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS]
    assert phases == [*[Phase.PROVISIONING] * 4, Phase.AWAITING_REGISTRATION]
    assert phase(registered(state, after(60))) is Phase.ONLINE


@given(st.permutations(["registered", "beating", "launch", "address"]))
def test_facts_lead_online_in_whatever_order_they_come(order: list[str]) -> None:
    state = new()
    while lifecycle.due(state, T0) is not Step.LAUNCH:
        state = step_done(state, T0)
    done = set[str]()
    for fact in order:
        if fact in ("launch", "address"):
            state = step_done(state, T0)
        else:
            state = heard(state, BoxFactKind(fact), after(1))
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
    state = heard(awaiting(new()), BoxFactKind.REGISTERED, after(30))
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


def never_registering() -> State:
    """A box that never registers, until nothing happens by itself any more."""
    state, at = awaiting(new()), T0
    while (wake := lifecycle.wake_at(state)) is not None:
        at = wake
        state = awaiting(lifecycle.apply(state, lifecycle.Tick(), at), at)
    return state


def test_a_box_that_never_registers_is_recreated_three_times_then_waits_for_a_human() -> None:
    state = never_registering()
    assert phase(state) is Phase.FAILED
    assert state.recovery.exhausted
    assert state.generation == 4
    assert condition(state, ConditionType.RECREATE_ALLOWED) is ConditionStatus.FALSE


def test_a_late_registration_is_welcome_in_failed() -> None:
    state = registered(never_registering(), after(hours=6))
    assert phase(state) is Phase.ONLINE
    assert not state.recovery.exhausted
    assert state.last_error is None


def test_a_fact_about_an_older_generation_changes_nothing() -> None:
    state = awaiting(asked(online(), T0, observed_generation=1)[0])
    for kind in set(BoxFactKind) - {BoxFactKind.INTRUDER, BoxFactKind.STRAY}:
        assert heard(state, kind, after(5), generation=1) == state


def test_a_fact_about_a_newer_generation_makes_it_read_the_record() -> None:
    state = heard(online(), BoxFactKind.REGISTERED, after(5), generation=2)
    assert lifecycle.due(state, after(5)) is Step.ENROLL


def test_silence_degrades_and_a_beat_brings_back() -> None:
    state = heard(online(), BoxFactKind.SILENT, after(100))
    assert phase(state) is Phase.DEGRADED
    assert condition(state, ConditionType.HEARTBEAT_FRESH) is ConditionStatus.FALSE
    assert heard(state, BoxFactKind.BEATING, after(50)) == state  # an older fact, come late
    assert phase(heard(state, BoxFactKind.BEATING, after(130))) is Phase.ONLINE


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
    state = lifecycle.apply(state, LaunchResult(strays=(instance_of(9),)), T0)
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
    assert state.recovery.exhausted
    assert phase(state) is Phase.FAILED


@pytest.mark.parametrize("timings", [NO_CANARY, WITH_CANARY])
def test_a_box_that_falls_silent_before_it_is_online_misses_its_deadline(timings: Timings) -> None:
    state = awaiting(new(timings=timings))
    state = heard(heard(state, BoxFactKind.REGISTERED, after(5)), BoxFactKind.BEATING, after(5))
    if timings is NO_CANARY:  # silent before its address was written
        state = heard(heard(awaiting_address(), BoxFactKind.REGISTERED, T0), BoxFactKind.BEATING, T0)
        state = step_done(heard(state, BoxFactKind.SILENT, after(95)), after(95))
    else:
        state = heard(state, BoxFactKind.SILENT, after(95))
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
    for kind in (BoxFactKind.REGISTERED, BoxFactKind.BEATING):
        state = lifecycle.apply(state, BoxChanged(kind=kind, generation=1, at=T0), after(minutes=6))
    assert lifecycle.due(state, after(minutes=6)) is Step.CANARY


def test_a_generation_that_was_decided_on_survives_reading_the_record_again() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, lifecycle.RecordAhead(), T0)
    state = lifecycle.apply(state, enrolled(generation=1), after(1))
    assert (state.generation, lifecycle.due(state, after(1))) == (2, Step.OPEN)


def awaiting_address() -> State:
    state = new()
    while lifecycle.due(state, T0) is not Step.ADDRESS:
        state = step_done(state, T0)
    return state


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


def test_a_fence_for_a_recreate_does_not_count_for_a_stop_that_came_meanwhile() -> None:
    begun = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=7), T0)
    assert lifecycle.due(begun, T0) is Step.FENCE  # it spares the box of generation 7
    stopped, _ = asked(begun, T0, kind=RequestKind.STOP)
    assert not lifecycle.is_still_wanted(Step.FENCE, begun, stopped)
    assert lifecycle.is_still_wanted(Step.FENCE, begun, heard(begun, BoxFactKind.REGISTERED, T0))


def test_a_closing_for_a_stop_does_not_count_for_a_deletion_that_came_meanwhile() -> None:
    stopped, _ = asked(online(), T0, kind=RequestKind.STOP)
    deleted, _ = asked(stopped, T0, kind=RequestKind.DELETE)
    assert lifecycle.due(deleted, T0) is Step.CLOSE
    assert not lifecycle.is_still_wanted(Step.CLOSE, stopped, deleted)


def test_a_step_of_a_generation_that_was_given_up_does_not_count() -> None:
    begun = awaiting_address()
    given_up = replace(begun, generation=2)
    assert not lifecycle.is_still_wanted(Step.ADDRESS, begun, given_up)
    assert lifecycle.is_still_wanted(Step.ENROLL, begun, given_up)


def test_a_workflow_that_starts_again_resumes_the_recorded_generation() -> None:
    known = replace(enrolled(generation=7), registered_at=T0, beating_at=T0, attempt=3)
    state = lifecycle.apply(State(workspace_id="ws-1"), known, T0)
    assert (state.generation, state.box.attempt) == (7, 3)
    steps = []
    while (step := lifecycle.due(state, T0)) is not None:
        steps.append(step)
        state = step_done(state, T0)
    assert steps == [Step.FENCE, Step.LAUNCH, Step.ADDRESS]  # no new generation
    assert phase(state) is Phase.ONLINE


def test_a_workflow_that_starts_again_leaves_a_stopped_workspace_stopped() -> None:
    state = lifecycle.apply(State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.STOP), T0)
    assert lifecycle.due(state, T0) is Step.FENCE
    assert phase(step_done(state, T0)) is Phase.STOPPED


def test_a_deleted_workspace_cannot_be_started_again() -> None:
    state = lifecycle.apply(
        State(workspace_id="ws-1"), enrolled(generation=3, intent=Intent.DELETE, deleted=True), T0
    )
    assert phase(state) is Phase.DELETED
    assert lifecycle.due(state, T0) is None


def test_the_database_has_the_last_word_on_the_generation() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = lifecycle.apply(state, GenerationOpened(generation=5, timings=NO_CANARY), T0)
    assert state.generation == 5
    assert state.flight is not None
    assert state.flight.generation == 5


def test_a_record_that_is_ahead_is_read_again_and_an_accepted_stop_survives_it() -> None:
    state, _ = asked(online(), T0, kind=RequestKind.STOP)
    state = lifecycle.apply(state, lifecycle.RecordAhead(), T0)
    assert lifecycle.due(state, T0) is None  # a record that stays ahead must not make a storm
    assert lifecycle.due(state, after(1)) is Step.ENROLL
    state = lifecycle.apply(state, enrolled(generation=4), T0)
    assert (state.generation, state.intent) == (4, Intent.STOP)
    assert lifecycle.due(state, T0) is Step.CLOSE


@pytest.mark.parametrize("streak", range(1, 12))
def test_spacing_doubles_up_to_an_hour_within_its_jitter(streak: int) -> None:
    base = min(timedelta(minutes=2) * 2 ** (streak - 1), timedelta(hours=1))
    for number in range(50):
        spacing = recovery.spacing(f"ws-{number}", streak)
        assert 0.8 * base <= spacing <= 1.2 * base
        assert spacing == recovery.spacing(f"ws-{number}", streak)


def test_an_hour_online_starts_the_spacing_over() -> None:
    state, _ = asked(online(), T0, observed_generation=1)
    state = registered(awaiting(state), T0)
    assert state.recovery.streak == 1
    assert lifecycle.apply(state, lifecycle.Tick(), after(minutes=59)).recovery.streak == 1
    assert lifecycle.apply(state, lifecycle.Tick(), after(minutes=60)).recovery.streak == 0


def test_six_recreates_in_a_day_are_the_most() -> None:
    state, accepted, at = online(), 0, T0
    for hour in range(0, 23, 2):
        at = after(hours=hour + 1)
        state, request = asked(state, at, observed_generation=state.generation)
        if request.outcome is OutcomeKind.ACCEPTED:
            accepted += 1
            state = registered(awaiting(state, at), at)
    assert accepted == 6


def test_a_condition_keeps_its_transition_time_until_its_status_changes() -> None:
    state = online()
    later = lifecycle.apply(state, lifecycle.Tick(), after(minutes=5))
    assert later.conditions == state.conditions
    silent = heard(later, BoxFactKind.SILENT, after(minutes=6))
    changed = {it.type for it in silent.conditions if it.last_transition_at == after(minutes=6)}
    assert changed == {ConditionType.HEARTBEAT_FRESH}


EVENTS = st.sampled_from(
    [
        "step",
        "step",
        "step",
        "fail",
        "refuse",
        "gone",
        "capacity",
        "strays",
        "wake",
        "ahead",
        *BoxFactKind,
        *RequestKind,
        "force",
    ]
)


@settings(max_examples=400)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 3), st.integers(0, 900)), max_size=60))
def test_no_history_breaks_what_must_always_hold(history: list[tuple[str, int, int]]) -> None:
    state, at = State(workspace_id="ws-1", timings=NO_CANARY), T0
    recorded_generation, answered = 0, list[str]()
    for event, offset, seconds in history:
        before, at = state, at + timedelta(seconds=seconds)
        seen = max(0, state.generation - offset + 1) if offset else None
        if event == "force":
            state, request = asked(
                state, at, requested_by="admin", observed_generation=state.generation, force=True
            )
            answered.append(request.request_id)
        elif event in list(RequestKind):
            state, request = asked(state, at, kind=RequestKind(event), observed_generation=seen)
            answered.append(request.request_id)
        elif event in list(BoxFactKind):
            state = heard(state, BoxFactKind(event), at, generation=max(1, state.generation - offset))
        elif event == "wake":
            at = max(at, lifecycle.wake_at(state) or at)
            state = lifecycle.apply(state, lifecycle.Tick(), at)
        elif event == "ahead":
            state = lifecycle.apply(state, lifecycle.RecordAhead(), at)
        elif (step := lifecycle.due(state, at)) is not None:
            if event == "fail":
                state = lifecycle.apply(state, failure(step), at)
            elif event == "refuse":
                state = lifecycle.apply(state, failure(step, retryable=False), at)
            elif step is Step.ENROLL:
                known: Enrolled = replace(
                    enrolled(generation=recorded_generation),
                    automatic=state.recovery.automatic,
                    accepted=state.recovery.accepted,
                )
                state = lifecycle.apply(state, known, at)
            elif event == "gone" and step is Step.ADDRESS:
                state = lifecycle.apply(state, AddressResult(gone=True), at)
            elif event == "capacity" and step is Step.LAUNCH:
                state = lifecycle.apply(state, LaunchResult(capacity_code="Unsupported", offerings=2), at)
            elif event == "strays" and step is Step.LAUNCH:
                state = lifecycle.apply(state, LaunchResult(strays=(instance_of(99),)), at)
            else:
                if step is Step.LAUNCH:
                    assert before.fence.confirmed, "I1: a launch without a confirmed fence"
                    assert before.opened == before.generation, "a launch of an unopened generation"
                if step is Step.OPEN:
                    recorded_generation = state.generation
                state = step_done(state, at)
        # A lost memory (RecordAhead) may fall back to the recorded generation, never below it.
        assert state.generation >= min(before.generation, recorded_generation)
        assert len(state.requests) >= len(set(answered)), "I2: an outcome is missing"
        if phase(state) is Phase.ONLINE:
            assert conditions.is_serving(state), "I9"
            assert state.flight is None
        assert len({error.phase for error in state.errors}) == len(state.errors)
        assert [it.type for it in state.conditions] in ([], list(ConditionType))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, 3]), st.booleans()), min_size=2, max_size=40))
def test_overlapping_requests_launch_one_instance(requests: list[tuple[int | None, bool]]) -> None:
    state = online(generation=2)
    outcomes = []
    for observed, human in requests:
        state, request = asked(
            state,
            after(minutes=10),
            requested_by="admin" if human else "watchdog",
            observed_generation=observed,
        )
        outcomes.append(request.outcome)
    assert outcomes.count(OutcomeKind.ACCEPTED) <= 1
    assert state.generation == 2 + outcomes.count(OutcomeKind.ACCEPTED)


def test_the_state_survives_being_carried_over() -> None:
    adapter = TypeAdapter(State)
    stories = (
        new(),
        online(generation=2),
        never_registering(),
        asked(online(), T0, kind=RequestKind.STOP)[0],
    )
    for state in itertools.chain(stories, (lifecycle.apply(online(), NOTHING_SEEN, T0),)):
        assert adapter.validate_python(adapter.dump_python(state, mode="json")) == state
