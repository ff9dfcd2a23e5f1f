"""Automatic requests wait for the fleet's permit; what becomes of them meanwhile and after."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import GRANTED, T0, after, asked, awaiting, heard, online, registered
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxEventKind, FleetPermit, StepFailed
from workflows.workspace.phases import fleet_permit
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.self_requests import REQUESTER, recreate_request
from workflows.workspace.state import ConditionStatus, ConditionType, Intent, Phase, State, Step

LATER = after(minutes=10)
FROZEN = FleetPermit(
    granted=False, frozen=True, reason="40 of 100 are stale", retry_after=timedelta(seconds=60)
)
BUSY = FleetPermit(granted=False, reason="10 are under way", retry_after=timedelta(seconds=30))


def minding() -> State:
    """Generation 2 online, in a run that minds the fleet."""
    return replace(online(generation=2), consults=True)


def pending(*requesters: str) -> State:
    """Automatic requests about generation 2 that wait."""
    state = minding()
    for requester in requesters or ("watchdog",):
        ask = RequestInput(
            kind=RequestKind.RECREATE, request_id=requester, requested_by=requester, observed_generation=2
        )
        state, decided = lifecycle.request(state, ask, LATER)
        assert decided is None
    return state


def outcome(state: State, request_id: str) -> Request:
    return next(request for request in state.requests if request.request_id == request_id)


def allowed(state: State) -> tuple[ConditionStatus, str]:
    return next(
        (it.status, it.reason) for it in state.conditions if it.type is ConditionType.RECREATE_ALLOWED
    )


def test_an_automatic_request_changes_nothing_before_the_fleet_has_spoken() -> None:
    state = pending()
    assert lifecycle.due(state, LATER) is Step.FLEET_PERMIT
    assert (state.generation, state.provisioning, phase(state)) == (2, None, Phase.ONLINE)
    assert [request.requested_by for request in state.requests] == ["admin:test"]


def test_leave_is_given_to_the_first_and_the_others_join_it() -> None:
    state = lifecycle.apply(pending("watchdog", "auto-recovery"), GRANTED, LATER)
    assert outcome(state, "watchdog").outcome is OutcomeKind.ACCEPTED
    assert outcome(state, "auto-recovery").outcome is OutcomeKind.JOINED
    assert (state.generation, state.pending) == (3, ())


@pytest.mark.parametrize(("permit", "reason"), [(FROZEN, "FleetFrozen"), (BUSY, "FleetBusy")])
def test_a_refusal_defers_says_why_and_ends_by_itself(permit: FleetPermit, reason: str) -> None:
    state = lifecycle.apply(pending(), permit, LATER)
    request = outcome(state, "watchdog")
    assert request.outcome is OutcomeKind.DEFERRED
    assert request.retry_at == LATER + permit.retry_after
    assert permit.reason in request.detail
    assert (state.generation, lifecycle.due(state, LATER)) == (2, None)
    assert allowed(state) == (ConditionStatus.FALSE, reason)
    assert lifecycle.wake_at(state) == request.retry_at
    thawed = lifecycle.apply(state, lifecycle.Tick(), LATER + permit.retry_after)
    assert allowed(thawed) == (ConditionStatus.TRUE, "Allowed")


def test_until_then_nobody_else_is_asked() -> None:
    state = lifecycle.apply(pending(), FROZEN, LATER)
    state, request = asked(state, LATER + timedelta(seconds=59), observed_generation=2)
    assert (request.outcome, state.pending) == (OutcomeKind.DEFERRED, ())


def test_a_human_passes_a_frozen_fleet_without_being_asked_for() -> None:
    state = lifecycle.apply(pending(), FROZEN, LATER)
    state, request = asked(state, LATER, requested_by="admin:alice", observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED


def test_a_human_goes_ahead_of_those_that_wait_and_they_join() -> None:
    state, request = asked(pending(), LATER, requested_by="admin:alice", observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED
    assert outcome(state, "watchdog").outcome is OutcomeKind.JOINED
    assert lifecycle.due(state, LATER) is Step.OPEN


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
@pytest.mark.parametrize("waiting", [RequestKind.RECREATE, RequestKind.START])
def test_what_waits_is_rejected_once_the_workspace_is_stopped(
    kind: RequestKind, waiting: RequestKind
) -> None:
    state = replace(minding(), halted=True)
    ask = RequestInput(kind=waiting, request_id="waits", requested_by="auto-recovery")
    state, decided = lifecycle.request(state, ask, LATER)
    assert decided is None
    state, _ = asked(state, LATER, kind=kind, requested_by="admin:alice")
    assert outcome(state, "waits").outcome is OutcomeKind.REJECTED
    assert state.intent is not Intent.RUN


def test_the_same_request_twice_waits_once() -> None:
    ask = RequestInput(
        kind=RequestKind.RECREATE, request_id="watchdog", requested_by="watchdog", observed_generation=2
    )
    state, decided = lifecycle.request(pending(), ask, LATER)
    assert decided is None
    assert len(state.pending) == 1


def test_one_that_joins_a_thousand_that_wait_does_not_have_them_decided_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A workflow task has two seconds; a storm that waited for the worker is one task."""
    state = pending(*(f"watchdog-{number}" for number in range(1_000)))
    again: list[str] = []

    def admit(
        state: State, ask: RequestInput, at: datetime, *, permit: FleetPermit | None = None
    ) -> tuple[State, None]:
        again.append(ask.request_id)
        return state, None

    monkeypatch.setattr(fleet_permit, "admit", admit)
    ask = RequestInput(
        kind=RequestKind.RECREATE, request_id="last", requested_by="watchdog", observed_generation=2
    )
    state, decided = lifecycle.request(state, ask, LATER)
    stale = replace(ask, request_id="stale", observed_generation=1)
    state, refused = lifecycle.request(state, stale, LATER)
    assert (decided, refused and refused.outcome) == (None, OutcomeKind.STALE)
    assert len(state.pending) == 1_001
    assert again == []


def test_a_fleet_that_cannot_be_read_is_frozen() -> None:
    failed = StepFailed(
        step=Step.FLEET_PERMIT, code="database_unavailable", message="away", hint="", retryable=True
    )
    state = lifecycle.apply(pending(), failed, LATER)
    request = outcome(state, "watchdog")
    assert request.outcome is OutcomeKind.DEFERRED
    assert "database_unavailable" in request.detail
    assert state.last_error is None
    assert lifecycle.due(state, LATER) is None


def test_the_lifecycles_own_request_is_repeated_until_the_fleet_allows_it() -> None:
    state, _ = asked(online(), LATER, requested_by="admin:test", observed_generation=1)
    state = replace(awaiting(state, LATER), consults=True)
    deadline = lifecycle.wake_at(state)
    assert deadline is not None
    state = lifecycle.apply(state, lifecycle.Tick(), deadline)
    assert [it.requested_by for it in state.pending] == [REQUESTER]
    state = lifecycle.apply(state, FROZEN, deadline)
    again = deadline + FROZEN.retry_after
    assert state.retry_recreate_at == again
    state = lifecycle.apply(state, lifecycle.Tick(), again)
    assert lifecycle.due(state, again) is Step.FLEET_PERMIT
    state = lifecycle.apply(state, GRANTED, again)
    assert state.generation == 3


def test_its_own_request_is_dropped_when_the_box_comes_online_while_it_waits() -> None:
    state = replace(heard(minding(), BoxEventKind.STALE, LATER), online_since=None)
    ask = recreate_request(state, LATER)
    state, decided = lifecycle.request(state, ask, LATER)
    assert decided is None
    state = registered(state, LATER + timedelta(seconds=1))
    assert phase(state) is Phase.ONLINE
    assert outcome(state, ask.request_id).outcome is OutcomeKind.STALE
    assert lifecycle.apply(state, GRANTED, LATER).generation == 2


def test_a_word_that_nobody_waits_for_any_more_changes_nothing() -> None:
    state = minding()
    assert lifecycle.apply(state, FROZEN, T0) == lifecycle.apply(state, lifecycle.Tick(), T0)


def test_runs_that_began_before_decide_at_once() -> None:
    _, request = asked(online(generation=2), LATER, observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED


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
def test_whatever_comes_each_request_has_one_outcome_and_waits_only_for_the_fleet(
    events: list[tuple[RequestInput | FleetPermit, timedelta]],
) -> None:
    state, at, sent = minding(), LATER, []
    for event, pause in events:
        at += pause
        if isinstance(event, RequestInput):
            sent.append(event.request_id)
            state, _ = lifecycle.request(state, event, at)
            looked_through = fleet_permit.decide_pending(state, at)  # nothing that waits was forgotten
            assert (looked_through.pending, looked_through.requests) == (state.pending, state.requests)
        else:
            state = lifecycle.apply(state, event, at)
        assert not state.pending or (
            state.provisioning is None and lifecycle.due(state, at) is Step.FLEET_PERMIT
        )
    state = lifecycle.apply(state, BUSY, at)
    decided = [request.request_id for request in state.requests if request.request_id in sent]
    assert sorted(decided) == sorted(sent)
