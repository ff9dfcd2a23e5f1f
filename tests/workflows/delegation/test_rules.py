"""Transitions of a delegation, and the action that is due, as properties of the state machine."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import assert_never

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.delegation.rules import (
    ACKNOWLEDGED,
    INITIAL_BACKOFF,
    LEGACY_STATUSES,
    MAX_BACKOFF,
    REPORTED_STATES,
    TERMINAL,
    DeadLetter,
    Deadlines,
    Delegation,
    DelegationState,
    DelegationType,
    Deliver,
    Due,
    End,
    Over,
    Receiver,
    Requeue,
    Stall,
    Wait,
    backoff,
    due,
    may_become,
    predecessors,
)

T0 = datetime(2026, 6, 11, 22, 19, tzinfo=UTC)
DEADLINES = Deadlines()
QUEUED, DELIVERED = DelegationState.QUEUED, DelegationState.DELIVERED
ACKED, IN_PROGRESS = DelegationState.ACKED, DelegationState.IN_PROGRESS
OPEN = (QUEUED, DELIVERED, ACKED, IN_PROGRESS)
ORDER = {**{state: rank for rank, state in enumerate(OPEN)}, **dict.fromkeys(TERMINAL, len(OPEN))}
"""The order of the states, independent of the rules."""

SENT = tuple(kind for kind in DelegationType if kind is not DelegationType.RECORD)
HERE = Receiver(generation=3, reachable=True)
PAIRS = list(product(DelegationState, repeat=2))


def delegation(state: DelegationState = QUEUED) -> Delegation:
    """A delegation whose target is reachable, and has the box that received it."""
    it = Delegation(type=DelegationType.DELEGATE, state=state, created_at=T0, receiver=HERE)
    if state is not QUEUED:
        it = replace(it, attempt=1, target_generation=3)
    return replace(it, progressed_at=T0) if state in ACKNOWLEDGED else it


def after(seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> datetime:
    return T0 + timedelta(seconds=seconds, minutes=minutes, hours=hours)


moments = st.integers(-30 * 60, 7 * 3600).map(after)
generations = st.integers(1, 4)
deadlines = st.builds(
    Deadlines,
    ack=st.integers(1, 300).map(lambda it: timedelta(seconds=it)),
    progress=st.integers(1, 8 * 3600).map(lambda it: timedelta(seconds=it)),
    expires_after=st.integers(1, 6 * 3600).map(lambda it: timedelta(seconds=it)),
    attempts=st.integers(1, 7),
)
receivers = st.builds(
    Receiver, deleted=st.booleans(), generation=st.none() | generations, reachable=st.booleans()
)
delegations = st.builds(
    Delegation,
    type=st.sampled_from(DelegationType),
    state=st.sampled_from(DelegationState),
    created_at=st.just(T0),
    attempt=st.integers(0, 8),
    connect_failures=st.integers(0, 2_000),
    not_before=st.none() | moments,
    target_generation=st.none() | generations,
    progressed_at=st.none() | moments,
    idempotent=st.booleans(),
    stalled=st.booleans(),
    dead_lettered=st.booleans(),
    source_deleted=st.booleans(),
    receiver=receivers,
)


def target(it: Delegation, what: Due, now: datetime) -> Delegation:
    """The delegation after the action."""
    match what:
        case Over() | Wait():
            return it
        case End(state=state):
            return replace(it, state=state)
        case Deliver(generation=generation):
            return replace(it, state=DELIVERED, attempt=it.attempt + 1, target_generation=generation)
        case Requeue():
            return replace(it, state=QUEUED, target_generation=None, progressed_at=None, stalled=False)
        case DeadLetter():
            return replace(it, dead_lettered=True)
        case Stall():
            return replace(it, stalled=True)
        case _ as never:
            assert_never(never)


def test_a_state_may_follow_only_an_earlier_one() -> None:
    for now, then in PAIRS:
        assert may_become(now, then) == (ORDER[then] > ORDER[now]), (now, then)
        assert (now in predecessors(then)) == may_become(now, then), (now, then)


def test_the_final_states() -> None:
    assert {it.value for it in TERMINAL} == {"processed", "failed", "expired", "canceled"}


def test_the_legacy_status_is_completed_only_once_processed() -> None:
    for now in DelegationState:
        assert (LEGACY_STATUSES[now] == "completed") == (now is DelegationState.PROCESSED)
        assert (LEGACY_STATUSES[now] in ("completed", "failed")) == (now in TERMINAL)


def test_a_final_legacy_status_never_changes_and_no_status_moves_back() -> None:
    statuses = ["queued", "dispatched", "in_progress"]
    for now, then in PAIRS:
        if may_become(now, then):
            assert LEGACY_STATUSES[now] in statuses, (now, then)
            if LEGACY_STATUSES[then] in statuses:
                assert statuses.index(LEGACY_STATUSES[now]) <= statuses.index(LEGACY_STATUSES[then])


def test_each_reported_status_means_its_state() -> None:
    assert REPORTED_STATES == {
        "queued": QUEUED,
        "acked": ACKED,
        "in_progress": IN_PROGRESS,
        "completed": DelegationState.PROCESSED,
        "failed": DelegationState.FAILED,
    }
    reported = {name for name, state in REPORTED_STATES.items() if LEGACY_STATUSES[state] == "completed"}
    assert reported == {"completed"}


@given(delegations, moments, deadlines)
def test_what_is_due_moves_it_forward_or_queues_it_again(
    it: Delegation, now: datetime, limits: Deadlines
) -> None:
    what = due(it, now, limits)
    then = target(it, what, now).state
    if it.state in TERMINAL:
        assert what == Over()
    elif isinstance(what, Requeue):
        assert it.state is not QUEUED
    else:
        assert then is it.state or may_become(it.state, then)
    # I10: only the target's report makes it processed
    assert then is not DelegationState.PROCESSED or it.state is DelegationState.PROCESSED


@given(delegations, moments, deadlines)
def test_a_wait_ends_in_the_future_and_not_after_the_end(
    it: Delegation, now: datetime, limits: Deadlines
) -> None:
    what = due(it, now, limits)
    if isinstance(what, Wait):
        assert now < what.until <= it.created_at + limits.expires_after


@given(delegations, moments, deadlines)
def test_due_actions_end_in_a_wait_or_a_final_state(it: Delegation, now: datetime, limits: Deadlines) -> None:
    for _ in range(6):  # at most a few actions in a row
        what = due(it, now, limits)
        if isinstance(what, (Wait, Over)):
            return
        it = target(it, what, now)
    pytest.fail(f"still {due(it, now, limits)} for {it}")


@given(delegations, moments, deadlines)
def test_open_delegations_end_once_they_expire(it: Delegation, now: datetime, limits: Deadlines) -> None:
    what = due(it, now, limits)
    if it.state in TERMINAL:
        return
    if now >= it.created_at + limits.expires_after:
        assert isinstance(what, End)
        assert (what.state, what.code) == (DelegationState.EXPIRED, "expired")
    else:
        assert not isinstance(what, End) or what.state is not DelegationState.EXPIRED


@given(delegations, moments, deadlines, deadlines)
def test_the_ack_deadline_alone_ends_and_resends_nothing(
    it: Delegation, now: datetime, limits: Deadlines, other: Deadlines
) -> None:
    assert due(it, now, replace(limits, ack=other.ack)) == due(it, now, limits)


def test_a_delivered_delegation_waits_for_its_ack_until_it_expires() -> None:
    it = delegation(DELIVERED)
    for now in (T0, after(121), after(minutes=11), after(hours=5.99)):
        assert due(it, now, DEADLINES) == Wait(after(hours=6))
    expired = due(it, after(hours=6), DEADLINES)
    assert isinstance(expired, End)
    assert expired.error == "not processed within 6 h"


@pytest.mark.parametrize("state", sorted(ACKNOWLEDGED))
def test_ten_minutes_without_progress_are_a_stall_once(state: DelegationState) -> None:
    it = replace(delegation(state), progressed_at=after(minutes=5))
    assert due(it, after(minutes=15) - timedelta(microseconds=1), DEADLINES) == Wait(after(minutes=15))
    assert due(it, after(minutes=15), DEADLINES) == Stall()
    assert due(replace(it, stalled=True), after(minutes=15), DEADLINES) == Wait(after(hours=6))
    # a report starts the time anew
    assert due(replace(it, progressed_at=after(minutes=14)), after(minutes=15), DEADLINES) == Wait(
        after(minutes=24)
    )


@given(delegations, moments, deadlines)
def test_only_acknowledged_delegations_can_stall(it: Delegation, now: datetime, limits: Deadlines) -> None:
    if isinstance(due(it, now, limits), Stall):
        assert it.state in ACKNOWLEDGED
        assert not it.stalled
        assert now - (it.progressed_at or it.created_at) >= limits.progress


@pytest.mark.parametrize(
    ("attempt", "expected"), [(4, Deliver(generation=3)), (5, DeadLetter()), (6, DeadLetter())]
)
def test_five_attempts_make_a_dead_letter(attempt: int, expected: Due) -> None:
    it = replace(delegation(), attempt=attempt)
    assert due(it, after(60), DEADLINES) == expected
    assert due(replace(it, dead_lettered=True), after(60), DEADLINES) == Wait(after(hours=6))


@given(delegations, moments, deadlines)
def test_only_queued_delegations_are_delivered_to_the_current_box_within_the_attempts(
    it: Delegation, now: datetime, limits: Deadlines
) -> None:
    what = due(it, now, limits)
    if isinstance(what, Deliver):
        assert it.state is QUEUED
        assert it.type is not DelegationType.RECORD
        assert what.generation == it.receiver.generation
        assert it.receiver.reachable
        assert not it.receiver.deleted
        assert not it.source_deleted
        assert not it.dead_lettered
        assert it.attempt < limits.attempts
        assert it.not_before is None or it.not_before <= now


@given(delegations, moments, deadlines, receivers)
def test_a_recorded_delegation_is_never_delivered(
    it: Delegation, now: datetime, limits: Deadlines, receiver: Receiver
) -> None:
    what = due(replace(it, type=DelegationType.RECORD, receiver=receiver), now, limits)
    assert isinstance(what, (Wait, End, Over))
    if isinstance(what, Wait):
        assert what.until == it.created_at + limits.expires_after


@pytest.mark.parametrize("type_", SENT)
def test_a_queued_delegation_is_delivered_once_its_target_is_reachable(type_: DelegationType) -> None:
    it = replace(delegation(), type=type_)
    assert due(it, after(1), DEADLINES) == Deliver(generation=3)
    assert due(replace(it, not_before=after(9)), after(1), DEADLINES) == Wait(after(9))
    assert due(replace(it, not_before=after(9)), after(9), DEADLINES) == Deliver(generation=3)
    away = replace(it, receiver=Receiver(generation=3, reachable=False))
    assert due(away, after(1), DEADLINES) == Wait(after(5))
    assert due(replace(away, connect_failures=9), after(1), DEADLINES) == Wait(after(31))


@pytest.mark.parametrize("state", OPEN)
@pytest.mark.parametrize("idempotent", [False, True])
def test_a_delegation_waits_while_its_target_is_stopped(state: DelegationState, idempotent: bool) -> None:
    it = replace(delegation(state), idempotent=idempotent, receiver=Receiver(generation=None, reachable=True))
    ends = after(minutes=10) if state in ACKNOWLEDGED else after(hours=6)
    assert due(it, after(60), DEADLINES) == Wait(ends)


@pytest.mark.parametrize("generation", [2, 4])
@pytest.mark.parametrize("idempotent", [False, True])
def test_an_unacknowledged_delegation_goes_to_the_next_box(generation: int, idempotent: bool) -> None:
    it = replace(delegation(DELIVERED), idempotent=idempotent, receiver=replace(HERE, generation=generation))
    assert due(it, after(60), DEADLINES) == Requeue()
    assert due(replace(it, attempt=99), after(60), DEADLINES) == Requeue()  # then it becomes a dead letter


@pytest.mark.parametrize("state", sorted(ACKNOWLEDGED))
@pytest.mark.parametrize("stalled", [False, True])
def test_work_of_a_replaced_box_is_repeated_only_if_idempotent(state: DelegationState, stalled: bool) -> None:
    it = replace(delegation(state), stalled=stalled, receiver=Receiver(generation=4, reachable=False))
    assert due(replace(it, idempotent=True), after(60), DEADLINES) == Requeue()
    ended = due(it, after(60), DEADLINES)
    assert isinstance(ended, End)
    assert (ended.state, ended.code) == (DelegationState.FAILED, "target_replaced")


@given(delegations, moments)
def test_a_deleted_source_or_target_ends_it(it: Delegation, now: datetime) -> None:
    what = due(it, now, DEADLINES)
    if it.state in TERMINAL or now >= after(hours=6) or not (it.source_deleted or it.receiver.deleted):
        return
    assert isinstance(what, End)
    if it.source_deleted:
        assert (what.state, what.code) == (DelegationState.CANCELED, "source_deleted")
    else:
        assert (what.state, what.code) == (DelegationState.FAILED, "target_deleted")


@given(st.integers(-5, 10_000))
def test_the_backoff_grows_within_its_bounds(connect_failures: int) -> None:
    assert INITIAL_BACKOFF <= backoff(connect_failures) <= backoff(connect_failures + 1) <= MAX_BACKOFF


def test_the_backoff_doubles() -> None:
    assert [backoff(failures).total_seconds() for failures in range(8)] == [1, 1, 2, 4, 8, 16, 30, 30]
