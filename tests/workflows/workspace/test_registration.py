"""Deadlines that ask the record first, lost credentials, and superseded boxes that call."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.workflows.workspace.scenarios import T0, after, asked, awaiting, heard, new, online, registered
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxEventKind, Evicted, StepFailed
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import (
    Condition,
    ConditionStatus,
    ConditionType,
    Phase,
    RegisterCallCount,
    RegistrationStatus,
    State,
    Step,
)

DEADLINE = after(minutes=10)
NOTHING = RegistrationStatus()


def condition(state: State, type_: ConditionType) -> Condition:
    return next(it for it in state.conditions if it.type is type_)


def overdue(*, at: datetime = DEADLINE) -> State:
    """A box that was not heard of until its deadline, in a run that asks the record."""
    state = replace(awaiting(new()), inquires=True)
    return lifecycle.apply(state, lifecycle.Tick(), at)


def test_a_deadline_that_passes_asks_the_record_before_it_counts() -> None:
    state = overdue()
    assert lifecycle.due(state, DEADLINE) is Step.CHECK_REGISTRATION
    assert phase(state) is Phase.AWAITING_REGISTRATION
    assert state.requests == ()
    assert state.last_error is None


def test_time_alone_changes_nothing_while_the_record_is_asked() -> None:
    state = overdue()
    assert lifecycle.wake_at(state) is None  # no timer that would fire again and again
    assert lifecycle.apply(state, lifecycle.Tick(), after(minutes=20)) == state


def test_a_record_that_cannot_be_read_recreates_nobody() -> None:
    failed = StepFailed(
        step=Step.CHECK_REGISTRATION, code="database_unavailable", message="", hint="", retryable=True
    )
    state, at = overdue(), DEADLINE
    for _ in range(5):
        state = lifecycle.apply(state, failed, at)
        assert lifecycle.due(state, at) is None
        next_at = lifecycle.wake_at(state)
        assert next_at is not None
        assert next_at > at
        at = next_at
        assert lifecycle.due(state, at) is Step.CHECK_REGISTRATION
    assert state.generation == 1
    assert state.last_error is not None
    assert state.last_error.code == "database_unavailable"


def test_news_that_waited_behind_an_outage_keeps_a_healthy_box() -> None:
    seen = RegistrationStatus(registered_at=after(30), heartbeat_at=after(minutes=9.9))
    state = lifecycle.apply(overdue(), seen, DEADLINE)
    assert phase(state) is Phase.ONLINE
    assert state.generation == 1
    assert state.last_error is None
    # the facts themselves come late, and say nothing new
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
        (
            RegistrationStatus(
                calls=(RegisterCallCount(code="token_invalid", count=3, from_box=True, last_at=T0),)
            ),
            "wrong_evidence",
            "WrongEvidence",
        ),
    ],
)
def test_the_record_says_why_a_box_is_not_registered_while_it_is_recreated_and_after(
    seen: RegistrationStatus, code: str, reason: str
) -> None:
    state = lifecycle.apply(overdue(), seen, DEADLINE)
    [own] = state.requests
    assert (own.requested_by, own.outcome) == ("lifecycle", OutcomeKind.ACCEPTED)
    assert state.generation == 2
    for at in (DEADLINE, after(minutes=11)):
        error = state.last_error
        assert error is not None
        assert (error.code, error.phase, error.generation) == (code, Step.AWAIT_REGISTRATION, 1)
        assert error.hint
        state = awaiting(state, at)
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=25))
    assert lifecycle.due(state, after(minutes=25)) is Step.CHECK_REGISTRATION
    state = lifecycle.apply(state, seen, after(minutes=25))
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.count) == (code, 2)


def test_the_condition_of_a_box_that_missed_its_deadline_says_why() -> None:
    spent = replace(overdue(), budget=replace(new().budget, exhausted=True))
    state = lifecycle.apply(spent, NOTHING, DEADLINE)
    it = condition(state, ConditionType.REGISTERED)
    assert (it.status, it.reason) == (ConditionStatus.FALSE, "NeverCalled")
    assert phase(state) is Phase.FAILED


def test_a_token_that_nobody_used_is_told_apart_from_a_box_that_does_not_beat() -> None:
    for unused, code in ((True, "token_never_used"), (False, "not_beating")):
        seen = RegistrationStatus(registered_at=after(30), token_unused=unused)
        state = lifecycle.apply(overdue(), seen, DEADLINE)
        assert state.last_error is not None
        assert state.last_error.code == code


def test_a_beat_that_is_older_than_the_silence_does_not_end_it() -> None:
    silent = heard(registered(awaiting(new()), after(10)), BoxEventKind.STALE, after(200))
    # not online: the canary was never answered
    waiting = replace(silent, provisioning=awaiting(new()).provisioning, online_since=None, inquires=True)
    state = lifecycle.apply(waiting, lifecycle.Tick(), DEADLINE)
    state = lifecycle.apply(state, RegistrationStatus(registered_at=T0, heartbeat_at=after(100)), DEADLINE)
    assert state.generation == 2
    assert state.last_error is not None
    assert state.last_error.code == "fell_silent"


def test_a_box_that_lost_its_credential_is_degraded_says_why_and_comes_back() -> None:
    state = heard(online(), BoxEventKind.CREDENTIAL_LOST, after(100))
    assert phase(state) is Phase.DEGRADED
    assert state.last_error is not None
    assert (state.last_error.code, state.last_error.phase) == ("credential_lost", Step.AWAIT_REGISTRATION)
    it = condition(state, ConditionType.REGISTERED)
    assert (it.status, it.reason) == (ConditionStatus.FALSE, "CredentialLost")

    state = heard(state, BoxEventKind.STALE, after(190))
    assert phase(state) is Phase.DEGRADED
    state = heard(state, BoxEventKind.ALIVE, after(200))
    assert phase(state) is Phase.ONLINE
    assert state.last_error is None


def test_an_older_word_about_a_credential_changes_nothing() -> None:
    state = heard(heard(online(), BoxEventKind.STALE, after(100)), BoxEventKind.ALIVE, after(130))
    assert heard(state, BoxEventKind.CREDENTIAL_LOST, after(120)) == state


def test_a_lost_credential_stays_on_the_record_while_the_workspace_is_recreated() -> None:
    state = heard(online(), BoxEventKind.CREDENTIAL_LOST, after(100))
    state, decided = asked(state, after(200), requested_by="admin:alice", observed_generation=1)
    assert decided.outcome is OutcomeKind.ACCEPTED
    state = awaiting(state, after(210))
    assert state.last_error is not None
    assert state.last_error.code == "credential_lost"
    assert registered(state, after(220)).last_error is None


def test_a_superseded_box_that_calls_is_ended() -> None:
    state = heard(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    assert lifecycle.due(state, after(300)) is Step.EVICT
    assert phase(state) is Phase.ONLINE  # it changes nothing about the current one
    state = lifecycle.apply(state, Evicted(instances=("i-00000000000000001",)), after(301))
    assert lifecycle.due(state, after(301)) is None
    assert state.superseded_caller is None


def test_an_eviction_that_fails_is_on_the_record_and_tried_again() -> None:
    state = heard(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    failed = StepFailed(step=Step.EVICT, code="OperationNotPermitted", message="", hint="", retryable=False)
    state = lifecycle.apply(state, failed, after(301))
    assert state.last_error is not None
    assert state.last_error.phase is Step.EVICT
    assert phase(state) is Phase.ONLINE
    at = lifecycle.wake_at(state)
    assert at is not None
    assert lifecycle.due(state, at) is Step.EVICT


def test_a_superseded_box_says_nothing_new_while_its_fence_goes_on() -> None:
    state, _ = asked(online(), after(200), requested_by="admin:alice", observed_generation=1)
    assert heard(state, BoxEventKind.SUPERSEDED_CALL, after(201), generation=1) == state


@pytest.mark.parametrize("generation", [2, 3])
def test_no_current_or_unknown_box_is_ever_an_intruder(generation: int) -> None:
    state = heard(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=generation)
    assert state.superseded_caller is None


def test_a_stopped_workspace_evicts_nobody() -> None:
    state, _ = asked(online(generation=2), after(200), kind=RequestKind.STOP, requested_by="admin:alice")
    state = awaiting(state, after(201))
    assert heard(state, BoxEventKind.SUPERSEDED_CALL, after(300), generation=1).superseded_caller is None


def test_the_next_generation_begins_without_an_intruder() -> None:
    state = heard(online(generation=2), BoxEventKind.SUPERSEDED_CALL, after(300), generation=1)
    state, _ = asked(state, after(301), requested_by="admin:alice", observed_generation=2)
    assert state.superseded_caller is None
    assert lifecycle.due(state, after(301)) is Step.OPEN


def test_an_inquiry_is_made_once_in_a_generation() -> None:
    seen = RegistrationStatus(registered_at=after(30), heartbeat_at=after(minutes=9.9))
    online_ = lifecycle.apply(overdue(), seen, DEADLINE)
    waiting = replace(online_, provisioning=awaiting(new()).provisioning, online_since=None)
    silent = heard(waiting, BoxEventKind.STALE, DEADLINE + timedelta(minutes=5))
    assert silent.generation == 2  # its deadline had passed long ago, and it was asked then
