"""Automatic requests wait for a fleet permit: their outcomes before and after it."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    GRANTED,
    T0,
    after,
    awaiting,
    box_event,
    due,
    online,
    registered,
    send_request,
)
from workflows.fleet.contract import FleetPermit
from workflows.workspace import lifecycle
from workflows.workspace.backoff import REQUESTER, recreate_request
from workflows.workspace.conditions import phase
from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import BoxEventKind, ConditionStatus, ConditionType, Intent, Phase, Step
from workflows.workspace.events import StepFailed, Tick
from workflows.workspace.phases import fleet_permit
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import BackingOff, Halted, State

LATER = after(minutes=10)
FROZEN = FleetPermit(
    granted=False, frozen=True, reason="40 of 100 are stale", retry_after=timedelta(seconds=60)
)
BUSY = FleetPermit(granted=False, reason="10 are in progress", retry_after=timedelta(seconds=30))


def generation_2() -> State:
    """Generation 2 online."""
    return online(generation=2)


def pending(*requesters: str) -> State:
    """Pending automatic requests about generation 2."""
    state = generation_2()
    for requester in requesters or ("watchdog",):
        request_input = RequestInput(
            kind=RequestKind.RECREATE, request_id=requester, requested_by=requester, observed_generation=2
        )
        state, decided = lifecycle.request(state, request_input, LATER)
        assert decided is None
    return state


def outcome(state: State, request_id: str) -> Request:
    return next(request for request in state.requests if request.request_id == request_id)


def allowed(state: State) -> tuple[ConditionStatus, str]:
    return next(
        (it.status, it.reason) for it in state.conditions if it.type is ConditionType.RECREATE_ALLOWED
    )


def test_an_automatic_request_changes_nothing_before_the_permit() -> None:
    state = pending()
    assert due(state, LATER) is Step.FLEET_PERMIT
    assert (state.generation, state.provisioning, phase(state)) == (2, None, Phase.ONLINE)
    assert [request.requested_by for request in state.requests] == ["admin:test"]


def test_the_first_request_gets_the_permit_and_the_others_join_it() -> None:
    state = lifecycle.apply(pending("watchdog", "auto-recovery"), GRANTED, LATER)
    assert outcome(state, "watchdog").outcome is OutcomeKind.ACCEPTED
    assert outcome(state, "auto-recovery").outcome is OutcomeKind.JOINED
    assert (state.generation, state.pending) == (3, ())


@pytest.mark.parametrize(("permit", "reason"), [(FROZEN, "FleetFrozen"), (BUSY, "FleetAtCapacity")])
def test_a_refusal_defers_with_the_reason_until_its_retry_time(permit: FleetPermit, reason: str) -> None:
    state = lifecycle.apply(pending(), permit, LATER)
    request = outcome(state, "watchdog")
    assert request.outcome is OutcomeKind.DEFERRED
    assert request.retry_at == LATER + permit.retry_after
    assert permit.reason in request.detail
    assert (state.generation, due(state, LATER)) == (2, None)
    assert allowed(state) == (ConditionStatus.FALSE, reason)
    assert lifecycle.wake_at(state) == request.retry_at
    thawed = lifecycle.apply(state, Tick(), LATER + permit.retry_after)
    assert allowed(thawed) == (ConditionStatus.TRUE, "Allowed")


def test_a_refusal_holds_for_later_requests() -> None:
    state = lifecycle.apply(pending(), FROZEN, LATER)
    state, request = send_request(state, LATER + timedelta(seconds=59), observed_generation=2)
    assert (request.outcome, state.pending) == (OutcomeKind.DEFERRED, ())


def test_pending_requests_join_a_manual_one() -> None:
    state, request = send_request(pending(), LATER, requested_by="admin:alice", observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED
    assert outcome(state, "watchdog").outcome is OutcomeKind.JOINED
    assert due(state, LATER) is Step.OPEN


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
@pytest.mark.parametrize("waiting", [RequestKind.RECREATE, RequestKind.START])
def test_pending_requests_are_rejected_once_the_workspace_is_stopped(
    kind: RequestKind, waiting: RequestKind
) -> None:
    state = replace(generation_2(), waiting=Halted(step=Step.LAUNCH))
    request_input = RequestInput(kind=waiting, request_id="waits", requested_by="auto-recovery")
    state, decided = lifecycle.request(state, request_input, LATER)
    assert decided is None
    state, _ = send_request(state, LATER, kind=kind, requested_by="admin:alice")
    assert outcome(state, "waits").outcome is OutcomeKind.REJECTED
    assert state.intent is not Intent.RUN


def test_a_repeated_request_is_pending_once() -> None:
    request_input = RequestInput(
        kind=RequestKind.RECREATE, request_id="watchdog", requested_by="watchdog", observed_generation=2
    )
    state, decided = lifecycle.request(pending(), request_input, LATER)
    assert decided is None
    assert len(state.pending) == 1


def test_one_more_request_does_not_decide_a_thousand_pending_ones_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A workflow task has two seconds, and may have to handle all requests of a storm."""
    state = pending(*(f"watchdog-{number}" for number in range(1_000)))
    again: list[str] = []

    def admit(
        state: State, request_input: RequestInput, at: datetime, *, permit: FleetPermit | None = None
    ) -> tuple[State, None]:
        again.append(request_input.request_id)
        return state, None

    monkeypatch.setattr(fleet_permit, "admit", admit)
    request_input = RequestInput(
        kind=RequestKind.RECREATE, request_id="last", requested_by="watchdog", observed_generation=2
    )
    state, decided = lifecycle.request(state, request_input, LATER)
    stale = replace(request_input, request_id="stale", observed_generation=1)
    state, refused = lifecycle.request(state, stale, LATER)
    assert (decided, refused and refused.outcome) == (None, OutcomeKind.STALE)
    assert len(state.pending) == 1_001
    assert again == []


def test_a_fleet_whose_state_cannot_be_read_is_frozen() -> None:
    failed = StepFailed(
        step=Step.FLEET_PERMIT, code="database_unavailable", message="no connection", hint="", retryable=True
    )
    state = lifecycle.apply(pending(), failed, LATER)
    request = outcome(state, "watchdog")
    assert request.outcome is OutcomeKind.DEFERRED
    assert "database_unavailable" in request.detail
    assert state.last_error is None
    assert due(state, LATER) is None


def test_the_own_request_is_repeated_until_the_fleet_permits_it() -> None:
    state, _ = send_request(online(), LATER, requested_by="admin:test", observed_generation=1)
    state = awaiting(state, LATER)
    deadline = lifecycle.wake_at(state)
    assert deadline is not None
    state = lifecycle.apply(lifecycle.apply(state, Tick(), deadline), RegistrationStatus(), deadline)
    assert [it.requested_by for it in state.pending] == [REQUESTER]
    state = lifecycle.apply(state, FROZEN, deadline)
    again = deadline + FROZEN.retry_after
    assert isinstance(state.waiting, BackingOff)
    assert state.waiting.until == again
    state = lifecycle.apply(state, Tick(), again)
    assert due(state, again) is Step.FLEET_PERMIT
    state = lifecycle.apply(state, GRANTED, again)
    assert state.generation == 3


def test_the_own_request_is_dropped_when_the_box_comes_online_first() -> None:
    state = replace(box_event(generation_2(), BoxEventKind.STALE, LATER), online_since=None)
    request_input = recreate_request(state, LATER)
    state, decided = lifecycle.request(state, request_input, LATER)
    assert decided is None
    state = registered(state, LATER + timedelta(seconds=1))
    assert phase(state) is Phase.ONLINE
    assert outcome(state, request_input.request_id).outcome is OutcomeKind.STALE
    assert lifecycle.apply(state, GRANTED, LATER).generation == 2


def test_a_permit_without_pending_requests_changes_nothing() -> None:
    state = generation_2()
    assert lifecycle.apply(state, FROZEN, T0) == lifecycle.apply(state, Tick(), T0)


requests = st.builds(
    RequestInput,
    kind=st.sampled_from([RequestKind.RECREATE, RequestKind.START, RequestKind.STOP]),
    request_id=st.uuids().map(str),
    requested_by=st.sampled_from(["watchdog", "auto-recovery", "admin:alice"]),
    observed_generation=st.sampled_from([None, 1, 2, 3]),
    force=st.booleans(),
)


@given(
    st.lists(
        st.tuples(
            st.one_of(requests, st.sampled_from([GRANTED, FROZEN, BUSY])),
            st.timedeltas(timedelta(seconds=1), timedelta(hours=2)),
        ),
        max_size=12,
    )
)
def test_each_request_has_one_outcome_and_waits_only_for_the_fleet(
    events: list[tuple[RequestInput | FleetPermit, timedelta]],
) -> None:
    state, at, sent = generation_2(), LATER, []
    for event, pause in events:
        at += pause
        if isinstance(event, RequestInput):
            sent.append(event.request_id)
            state, _ = lifecycle.request(state, event, at)
            decided_again = fleet_permit.decide_pending(state, at)  # no decidable request was left pending
            assert (decided_again.pending, decided_again.requests) == (state.pending, state.requests)
        else:
            state = lifecycle.apply(state, event, at)
        assert not state.pending or (state.provisioning is None and due(state, at) is Step.FLEET_PERMIT)
    state = lifecycle.apply(state, BUSY, at)
    decided = [request.request_id for request in state.requests if request.request_id in sent]
    assert sorted(decided) == sorted(sent)
