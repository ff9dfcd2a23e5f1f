"""Register deadlines that read the record first, lost credentials, and superseded boxes that call."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    box_event,
    due,
    new,
    online,
    permitted,
    registered,
    send_request,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import Evicted
from workflows.workspace.diagnosis import RegisterCallCount, RegistrationStatus
from workflows.workspace.enums import BoxEventKind, ConditionStatus, ConditionType, Phase, Step
from workflows.workspace.events import StepFailed, Tick
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Condition, State

DEADLINE = after(minutes=10)
NOTHING = RegistrationStatus()


def condition(state: State, type_: ConditionType) -> Condition:
    return next(it for it in state.conditions if it.type is type_)


def overdue(*, at: datetime = DEADLINE) -> State:
    """A box that did nothing until its deadline."""
    return lifecycle.apply(awaiting(new()), Tick(), at)


def test_a_passed_deadline_reads_the_record_before_it_counts() -> None:
    state = overdue()
    assert due(state, DEADLINE) is Step.CHECK_REGISTRATION
    assert phase(state) is Phase.AWAITING_REGISTRATION
    assert state.requests == ()
    assert state.last_error is None


def test_time_alone_changes_nothing_while_the_record_is_read() -> None:
    state = overdue()
    assert lifecycle.wake_at(state) is None  # no timer loops
    assert lifecycle.apply(state, Tick(), after(minutes=20)) == state


def test_a_record_that_cannot_be_read_causes_no_recreate() -> None:
    failed = StepFailed(
        step=Step.CHECK_REGISTRATION, code="database_unavailable", message="", hint="", retryable=True
    )
    state, at = overdue(), DEADLINE
    for _ in range(5):
        state = lifecycle.apply(state, failed, at)
        assert due(state, at) is None
        next_at = lifecycle.wake_at(state)
        assert next_at is not None
        assert next_at > at
        at = next_at
        assert due(state, at) is Step.CHECK_REGISTRATION
    assert state.generation == 1
    assert state.last_error is not None
    assert state.last_error.code == "database_unavailable"


def test_events_delayed_by_an_outage_do_not_replace_a_healthy_box() -> None:
    seen = RegistrationStatus(registered_at=after(30), heartbeat_at=after(minutes=9.9))
    state = lifecycle.apply(overdue(), seen, DEADLINE)
    assert phase(state) is Phase.ONLINE
    assert state.generation == 1
    assert state.last_error is None
    # the delayed events change nothing
    assert phase(registered(state, after(minutes=11))) is Phase.ONLINE


@pytest.mark.parametrize(
    ("seen", "code", "reason"),
    [
        (NOTHING, "never_called", "NeverCalled"),
        (
            RegistrationStatus(
                calls=(RegisterCallCount(code="token_missing", count=3, from_box=True, last_at=T0),)
            ),
            "called_without_evidence",
            "CalledWithoutEvidence",
        ),
    ],
)
def test_the_error_explains_a_missed_registration_across_recreates(
    seen: RegistrationStatus, code: str, reason: str
) -> None:
    state = permitted(lifecycle.apply(overdue(), seen, DEADLINE), DEADLINE)
    [own] = state.requests
    assert (own.requested_by, own.outcome) == ("lifecycle", OutcomeKind.ACCEPTED)
    assert state.generation == 2
    for at in (DEADLINE, after(minutes=11)):
        error = state.last_error
        assert error is not None
        assert (error.code, error.phase, error.generation) == (code, Step.AWAIT_REGISTRATION, 1)
        assert error.hint
        state = awaiting(state, at)
    state = lifecycle.apply(state, Tick(), after(minutes=25))
    assert due(state, after(minutes=25)) is Step.CHECK_REGISTRATION
    state = lifecycle.apply(state, seen, after(minutes=25))
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.count) == (code, 2)


def test_the_condition_of_a_box_that_missed_its_deadline_says_why() -> None:
    spent = tuple(after(minutes=minute) for minute in (1, 2, 3))
    state = replace(overdue(), budget=replace(new().budget, automatic=spent))
    state = lifecycle.apply(state, NOTHING, DEADLINE)
    it = condition(state, ConditionType.REGISTERED)
    assert (it.status, it.reason) == (ConditionStatus.FALSE, "NeverCalled")
    assert phase(state) is Phase.FAILED


def test_a_heartbeat_from_before_the_box_became_stale_does_not_count() -> None:
    stale = box_event(registered(awaiting(new()), after(10)), BoxEventKind.STALE, after(200))
    # not online: the canary was never answered
    waiting = replace(stale, waiting=awaiting(new()).waiting, online_since=None)
    state = lifecycle.apply(waiting, Tick(), DEADLINE)
    older = RegistrationStatus(registered_at=T0, heartbeat_at=after(100))
    state = permitted(lifecycle.apply(state, older, DEADLINE), DEADLINE)
    assert state.generation == 2
    assert state.last_error is not None
    assert state.last_error.code == "fell_silent"


def test_a_box_that_lost_its_credential_is_degraded_with_the_reason_and_recovers() -> None:
    state = box_event(online(), BoxEventKind.CREDENTIAL_LOST, after(100))
    assert phase(state) is Phase.DEGRADED
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.phase) == ("credential_lost", Step.AWAIT_REGISTRATION)
    it = condition(state, ConditionType.REGISTERED)
    assert (it.status, it.reason) == (ConditionStatus.FALSE, "CredentialLost")

    state = box_event(state, BoxEventKind.STALE, after(190))
    assert phase(state) is Phase.DEGRADED
    state = box_event(state, BoxEventKind.ALIVE, after(200))
    assert phase(state) is Phase.ONLINE
    assert state.last_error is None


def test_an_older_event_about_a_credential_changes_nothing() -> None:
    state = box_event(box_event(online(), BoxEventKind.STALE, after(100)), BoxEventKind.ALIVE, after(130))
    assert box_event(state, BoxEventKind.CREDENTIAL_LOST, after(120)) == state


def test_the_error_of_a_lost_credential_stays_during_a_recreate() -> None:
    state = box_event(online(), BoxEventKind.CREDENTIAL_LOST, after(100))
    state, decided = send_request(state, after(200), requested_by="admin:alice", observed_generation=1)
    assert decided.outcome is OutcomeKind.ACCEPTED
    state = awaiting(state, after(210))
    assert state.last_error is not None
    assert state.last_error.code == "credential_lost"
    assert registered(state, after(220)).last_error is None


def test_a_superseded_box_that_calls_is_terminated() -> None:
    state = box_event(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    assert due(state, after(300)) is Step.EVICT
    assert phase(state) is Phase.ONLINE  # the current box is not affected
    state = lifecycle.apply(state, Evicted(instances=("i-00000000000000001",)), after(301))
    assert due(state, after(301)) is None
    assert state.superseded_caller is None


def test_a_failed_eviction_is_an_error_and_is_retried() -> None:
    state = box_event(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    failed = StepFailed(step=Step.EVICT, code="OperationNotPermitted", message="", hint="", retryable=False)
    state = lifecycle.apply(state, failed, after(301))
    assert state.last_error is not None
    assert state.last_error.phase is Step.EVICT
    assert phase(state) is Phase.ONLINE
    at = lifecycle.wake_at(state)
    assert at is not None
    assert due(state, at) is Step.EVICT


def test_a_superseded_call_during_its_fence_changes_nothing() -> None:
    state, _ = send_request(online(), after(200), requested_by="admin:alice", observed_generation=1)
    assert box_event(state, BoxEventKind.SUPERSEDED_CALL, after(201), generation=1) == state


@pytest.mark.parametrize("generation", [2, 3])
def test_a_current_or_unknown_box_is_no_superseded_caller(generation: int) -> None:
    state = box_event(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=generation)
    assert state.superseded_caller is None


def test_a_stopped_workspace_evicts_no_superseded_caller() -> None:
    state, _ = send_request(
        online(generation=2), after(200), kind=RequestKind.STOP, requested_by="admin:alice"
    )
    state = awaiting(state, after(201))
    assert box_event(state, BoxEventKind.SUPERSEDED_CALL, after(300), generation=1).superseded_caller is None


def test_the_next_generation_starts_without_a_superseded_caller() -> None:
    state = box_event(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    state, _ = send_request(state, after(301), requested_by="admin:alice", observed_generation=2)
    assert state.superseded_caller is None
    assert due(state, after(301)) is Step.OPEN


def test_the_record_is_read_once_per_generation() -> None:
    seen = RegistrationStatus(registered_at=after(30), heartbeat_at=after(minutes=9.9))
    online_ = lifecycle.apply(overdue(), seen, DEADLINE)
    waiting = replace(online_, waiting=awaiting(new()).waiting, online_since=None)
    at = DEADLINE + timedelta(minutes=5)
    stale = permitted(box_event(waiting, BoxEventKind.STALE, at), at)
    assert stale.generation == 2  # the record was read when the deadline passed
