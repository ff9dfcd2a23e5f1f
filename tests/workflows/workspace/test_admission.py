"""The admission rules, one by one."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    box_event,
    new,
    online,
    registered,
    send_request,
)
from workflows.workspace import admission, lifecycle
from workflows.workspace.admission import KEPT_OUTCOMES
from workflows.workspace.conditions import phase
from workflows.workspace.enums import BoxEventKind, Phase
from workflows.workspace.events import Tick
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import BackingOff, FleetFreeze, State

LATER = after(minutes=10)


def in_flight() -> State:
    """Generation 3 in progress, after generation 2."""
    state, request = send_request(online(generation=2), LATER, observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED
    return state


def test_a_repeated_request_id_gets_the_earlier_outcome_and_changes_nothing() -> None:
    state, first = send_request(online(generation=2), LATER, observed_generation=2, request_id="same")
    again, second = send_request(state, after(minutes=20), observed_generation=3, request_id="same")
    assert second is first
    assert again == state


@pytest.mark.parametrize("observed", [None, 2, 3])
def test_a_request_joins_a_generation_in_progress(observed: int | None) -> None:
    before = in_flight()
    state, request = send_request(before, LATER, requested_by="auto-recovery", observed_generation=observed)
    assert request.outcome is OutcomeKind.JOINED
    assert request.generation == 3
    assert state.generation == 3
    assert state.provisioning is not None
    assert state.provisioning.requesters == ("watchdog", "auto-recovery")


@pytest.mark.parametrize(("observed", "outcome"), [(1, OutcomeKind.STALE), (4, OutcomeKind.REJECTED)])
def test_a_request_about_another_generation_does_not_join(observed: int, outcome: OutcomeKind) -> None:
    state, request = send_request(in_flight(), LATER, observed_generation=observed)
    assert request.outcome is outcome
    assert state.generation == 3


def test_an_operators_force_replaces_a_generation_that_awaits_registration() -> None:
    state, request = send_request(
        awaiting(in_flight(), LATER), LATER, requested_by="admin:alice", observed_generation=3, force=True
    )
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == 4


@pytest.mark.parametrize(
    ("requested_by", "observed", "force"),
    [("watchdog", 3, True), ("admin:alice", 2, True), ("admin:alice", None, True), ("admin:alice", 3, False)],
)
def test_only_force_by_an_operator_about_that_generation_replaces_it(
    requested_by: str, observed: int | None, force: bool
) -> None:
    state, request = send_request(
        awaiting(in_flight(), LATER),
        LATER,
        requested_by=requested_by,
        observed_generation=observed,
        force=force,
    )
    assert request.outcome is OutcomeKind.JOINED
    assert state.generation == 3


def test_force_does_not_interrupt_a_launch() -> None:
    _, request = send_request(in_flight(), LATER, requested_by="admin", observed_generation=3, force=True)
    assert request.outcome is OutcomeKind.JOINED


def test_a_request_about_an_earlier_generation_is_stale() -> None:
    before = online(generation=2)
    state, request = send_request(
        before, after(hours=5), observed_generation=1, requested_by="admin", force=True
    )
    assert request.outcome is OutcomeKind.STALE
    assert state.generation == before.generation
    assert state.box == before.box


def test_a_request_without_a_generation_is_stale_in_the_grace_period() -> None:
    _, early = send_request(online(generation=2), after(seconds=119))
    _, late = send_request(online(generation=2), after(seconds=121))
    assert early.outcome is OutcomeKind.STALE
    assert late.outcome is OutcomeKind.ACCEPTED


def test_the_first_generation_has_no_grace_period() -> None:
    state, request = send_request(online(), after(seconds=1))
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == 2


def test_a_request_about_a_later_generation_is_rejected() -> None:
    state, request = send_request(online(), LATER, observed_generation=2, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.REJECTED
    assert state.generation == 1


def test_a_stopped_workspace_rejects_a_recreate() -> None:
    state, _ = send_request(online(), LATER, kind=RequestKind.STOP)
    state, request = send_request(state, LATER, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.REJECTED
    assert "request_start" in request.detail


def test_an_automatic_request_waits_for_the_backoff_and_a_manual_one_does_not() -> None:
    state, _ = send_request(online(), LATER, observed_generation=1)
    state = registered(awaiting(state, LATER), LATER)
    soon = LATER + timedelta(seconds=30)
    _, automatic = send_request(state, soon, observed_generation=2)
    _, manual = send_request(state, soon, observed_generation=2, requested_by="admin:alice")
    assert automatic.outcome is OutcomeKind.DEFERRED
    assert automatic.retry_at is not None
    assert timedelta(minutes=1.6) <= automatic.retry_at - LATER <= timedelta(minutes=2.4)
    assert manual.outcome is OutcomeKind.ACCEPTED


def spent() -> State:
    """Three automatic recreates within the hour, the box online after each."""
    state = online()
    for number, minute in enumerate((10, 20, 30), start=1):
        state, request = send_request(state, after(minutes=minute), observed_generation=number)
        assert request.outcome is OutcomeKind.ACCEPTED
        state = registered(awaiting(state, after(minutes=minute)), after(minutes=minute))
    return state


def test_an_exhausted_budget_defers_until_it_resets() -> None:
    _, request = send_request(spent(), after(minutes=45), observed_generation=4)
    assert request.outcome is OutcomeKind.DEFERRED
    assert request.retry_at == after(minutes=70)
    assert "force" in request.detail


def test_only_an_operators_force_bypasses_an_exhausted_budget() -> None:
    _, forced = send_request(
        spent(), after(minutes=45), requested_by="admin", observed_generation=4, force=True
    )
    _, unforced = send_request(spent(), after(minutes=45), requested_by="admin", observed_generation=4)
    _, pretended = send_request(spent(), after(minutes=45), observed_generation=4, force=True)
    assert forced.outcome is OutcomeKind.ACCEPTED
    assert unforced.outcome is OutcomeKind.DEFERRED
    assert pretended.outcome is OutcomeKind.DEFERRED


def test_a_frozen_fleet_defers_automatic_requests_and_accepts_manual_ones() -> None:
    state = lifecycle.apply(
        online(), FleetFreeze(until=after(minutes=30), reason="no heartbeats are accepted"), T0
    )
    _, automatic = send_request(state, LATER, observed_generation=1)
    _, manual = send_request(state, LATER, observed_generation=1, requested_by="admin:alice")
    assert (automatic.outcome, automatic.retry_at) == (OutcomeKind.DEFERRED, after(minutes=30))
    assert manual.outcome is OutcomeKind.ACCEPTED


def test_a_freeze_ends_at_its_time() -> None:
    state = lifecycle.apply(online(), FleetFreeze(until=after(minutes=30), reason="storm"), T0)
    assert lifecycle.wake_at(state) == after(minutes=30)
    state = lifecycle.apply(state, Tick(), after(minutes=30))
    assert state.frozen is None


def test_the_incident_is_one_accepted_and_two_joined_and_minutes_later_three_stale() -> None:
    state = box_event(online(generation=2), BoxEventKind.STALE, LATER)
    assert phase(state) is Phase.DEGRADED
    outcomes = []
    for who in ("watchdog", "auto-recovery", "admin:core-devops"):
        state, request = send_request(state, LATER, requested_by=who, observed_generation=2)
        outcomes.append(request.outcome)
    state = registered(awaiting(state, LATER), LATER)
    for who in ("watchdog", "auto-recovery", "admin:core-devops"):
        state, request = send_request(state, after(minutes=14), requested_by=who, observed_generation=2)
        outcomes.append(request.outcome)
    assert outcomes == [OutcomeKind.ACCEPTED, *[OutcomeKind.JOINED] * 2, *[OutcomeKind.STALE] * 3]
    assert state.generation == 3


def test_start_of_a_running_workspace_joins_and_launches_nothing() -> None:
    for state in (online(), in_flight()):
        again, request = send_request(state, LATER, kind=RequestKind.START)
        assert request.outcome is OutcomeKind.JOINED
        assert again.generation == state.generation


def test_an_unknown_request_is_rejected_and_recorded() -> None:
    state, request = send_request(online(), LATER, kind=RequestKind.UNKNOWN)
    assert request.outcome is OutcomeKind.REJECTED
    assert state.requests[-1] is request


def test_outcomes_that_are_not_recorded_yet_are_never_dropped() -> None:
    state = online(generation=2)
    for _ in range(700):
        state, _ = send_request(state, LATER, observed_generation=1)
    assert state.unrecorded == 701  # with the recreate that made generation 2
    assert len(state.requests) == 701


def test_an_automatic_start_cannot_bypass_an_exhausted_budget() -> None:
    state = awaiting(new())
    while phase(state) is not Phase.FAILED or isinstance(state.waiting, BackingOff):
        at = lifecycle.wake_at(state)
        assert at is not None
        state = awaiting(lifecycle.apply(state, Tick(), at), at)
    _, program = send_request(state, after(hours=9), kind=RequestKind.START)
    _, manual = send_request(state, after(hours=9), kind=RequestKind.START, requested_by="admin")
    assert (program.outcome, manual.outcome) == (OutcomeKind.DEFERRED, OutcomeKind.ACCEPTED)


@st.composite
def merge_cases(draw: st.DrawFn) -> tuple[State, list[Request]]:
    """A state with requests, the newest of them unrecorded, and the recorded requests."""
    minutes = draw(st.lists(st.integers(1, 400), unique=True, max_size=12).map(sorted))
    state = new()
    for minute in minutes:
        state, _ = send_request(state, after(minutes=minute), request_id=f"at-{minute}")
    state = replace(state, unrecorded=draw(st.integers(0, len(minutes))))
    by_id = {request.request_id: request for request in state.requests}
    decided = draw(st.lists(st.integers(1, 400), unique=True, max_size=250).map(sorted))
    known = [
        by_id.get(
            f"at-{minute}",
            Request(
                request_id=f"at-{minute}",
                kind=RequestKind.RECREATE,
                requested_by="watchdog",
                reason="",
                observed_generation=None,
                force=False,
                at=after(minutes=minute),
                outcome=OutcomeKind.ACCEPTED,
                generation=1,
                detail="",
            ),
        )
        for minute in decided
    ]
    return state, known


@given(merge_cases())
def test_recorded_requests_are_merged_in_order_and_the_newest_are_kept(
    case: tuple[State, list[Request]],
) -> None:
    before, decided = case
    merged = admission.merge_recorded(before, decided)
    assert (merged.unrecorded, replace(merged, requests=before.requests)) == (before.unrecorded, before)
    waiting = before.requests[len(before.requests) - before.unrecorded :]
    assert merged.requests[len(merged.requests) - before.unrecorded :] == waiting
    recorded = merged.requests[: len(merged.requests) - before.unrecorded]
    assert list(recorded) == sorted(recorded, key=lambda request: request.at)
    known = {request.request_id for request in (*before.requests, *decided)}
    assert len(merged.requests) == min(len(known), KEPT_OUTCOMES)
    assert len({request.request_id for request in merged.requests}) == len(merged.requests)


def test_a_request_that_is_only_recorded_gets_its_earlier_outcome() -> None:
    _, first = send_request(online(generation=2), LATER, observed_generation=2, request_id="same")
    state = admission.merge_recorded(online(generation=3), [first])
    again, second = send_request(state, after(minutes=20), observed_generation=3, request_id="same")
    assert second is first
    assert again == state


def test_a_request_id_of_another_kind_is_rejected_and_changes_nothing() -> None:
    state, recreate = send_request(
        online(), LATER, requested_by="admin:alice", observed_generation=1, request_id="r-1"
    )
    after_stop, stop = send_request(
        state, LATER, kind=RequestKind.STOP, requested_by="admin:alice", request_id="r-1"
    )
    assert stop.outcome is OutcomeKind.REJECTED
    assert "r-1 is the ID of a recreate request (accepted)" in stop.detail
    assert (after_stop.intent, after_stop.generation) == (state.intent, state.generation)
    repeated, same = send_request(
        after_stop, LATER, kind=RequestKind.STOP, requested_by="admin:alice", request_id="r-1"
    )
    assert (same, repeated) == (stop, after_stop)
    _, again = send_request(
        repeated, LATER, requested_by="admin:alice", observed_generation=1, request_id="r-1"
    )
    assert again == recreate
