"""The admission table, row by row."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import T0, after, asked, awaiting, heard, new, online, registered
from workflows.workspace import admission, lifecycle
from workflows.workspace.admission import KEPT_OUTCOMES
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxEventKind
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import FleetFreeze, Intent, Phase, State, Step

LATER = after(minutes=10)


def in_flight() -> State:
    """Generation 3 on its way, generation 2 before it."""
    state, request = asked(online(generation=2), LATER, observed_generation=2)
    assert request.outcome is OutcomeKind.ACCEPTED
    return state


def test_a_repeated_request_id_gets_the_earlier_outcome_and_changes_nothing() -> None:
    state, first = asked(online(generation=2), LATER, observed_generation=2, request_id="same")
    again, second = asked(state, after(minutes=20), observed_generation=3, request_id="same")
    assert second is first
    assert again == state


@pytest.mark.parametrize("kind", [RequestKind.RECREATE, RequestKind.STOP, RequestKind.START])
def test_a_deleted_workspace_rejects_everything(kind: RequestKind) -> None:
    state, _ = asked(online(), LATER, kind=RequestKind.DELETE)
    state, request = asked(state, LATER, kind=kind, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.REJECTED
    assert state.intent is Intent.DELETE


@pytest.mark.parametrize("observed", [None, 2, 3])
def test_a_request_during_a_flight_joins_it(observed: int | None) -> None:
    before = in_flight()
    state, request = asked(before, LATER, requested_by="auto-recovery", observed_generation=observed)
    assert request.outcome is OutcomeKind.JOINED
    assert request.generation == 3
    assert state.generation == 3
    assert state.provisioning is not None
    assert state.provisioning.requesters == ("watchdog", "auto-recovery")


@pytest.mark.parametrize(("observed", "outcome"), [(1, OutcomeKind.STALE), (4, OutcomeKind.REJECTED)])
def test_a_request_during_a_flight_about_another_generation_does_not_join(
    observed: int, outcome: OutcomeKind
) -> None:
    state, request = asked(in_flight(), LATER, observed_generation=observed)
    assert request.outcome is outcome
    assert state.generation == 3


def test_force_of_a_human_gives_up_a_generation_that_awaits_registration() -> None:
    state, request = asked(
        awaiting(in_flight(), LATER), LATER, requested_by="admin:alice", observed_generation=3, force=True
    )
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == 4


@pytest.mark.parametrize(
    ("requested_by", "observed", "force"),
    [("watchdog", 3, True), ("admin:alice", 2, True), ("admin:alice", None, True), ("admin:alice", 3, False)],
)
def test_nothing_less_gives_it_up(requested_by: str, observed: int | None, force: bool) -> None:
    state, request = asked(
        awaiting(in_flight(), LATER),
        LATER,
        requested_by=requested_by,
        observed_generation=observed,
        force=force,
    )
    assert request.outcome is OutcomeKind.JOINED
    assert state.generation == 3


def test_force_does_not_interrupt_a_launch() -> None:
    _, request = asked(in_flight(), LATER, requested_by="admin", observed_generation=3, force=True)
    assert request.outcome is OutcomeKind.JOINED


def test_a_request_about_a_generation_that_is_gone_is_stale() -> None:
    before = online(generation=2)
    state, request = asked(before, after(hours=5), observed_generation=1, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.STALE
    assert state.generation == before.generation
    assert state.box == before.box


def test_a_request_that_names_no_generation_is_stale_while_the_box_settles() -> None:
    _, early = asked(online(generation=2), after(seconds=119))
    _, late = asked(online(generation=2), after(seconds=121))
    assert early.outcome is OutcomeKind.STALE
    assert late.outcome is OutcomeKind.ACCEPTED


def test_the_first_generation_does_not_settle_because_nobody_can_mean_an_earlier_one() -> None:
    state, request = asked(online(), after(seconds=1))
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == 2


def test_no_sender_knows_the_future() -> None:
    state, request = asked(online(), LATER, observed_generation=2, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.REJECTED
    assert state.generation == 1


def test_a_stopped_workspace_rejects_a_recreate() -> None:
    state, _ = asked(online(), LATER, kind=RequestKind.STOP)
    state, request = asked(state, LATER, requested_by="admin", force=True)
    assert request.outcome is OutcomeKind.REJECTED
    assert "request_start" in request.detail


def test_an_automatic_request_waits_for_its_spacing_and_a_human_does_not() -> None:
    state, _ = asked(online(), LATER, observed_generation=1)
    state = registered(awaiting(state, LATER), LATER)
    soon = LATER + timedelta(seconds=30)
    _, automatic = asked(state, soon, observed_generation=2)
    _, human = asked(state, soon, observed_generation=2, requested_by="admin:alice")
    assert automatic.outcome is OutcomeKind.DEFERRED
    assert automatic.retry_at is not None
    assert timedelta(minutes=1.6) <= automatic.retry_at - LATER <= timedelta(minutes=2.4)
    assert human.outcome is OutcomeKind.ACCEPTED


def spent() -> State:
    """Three automatic recreates within the hour, the box online after each."""
    state = online()
    for number, minute in enumerate((10, 20, 30), start=1):
        state, request = asked(state, after(minutes=minute), observed_generation=number)
        assert request.outcome is OutcomeKind.ACCEPTED
        state = registered(awaiting(state, after(minutes=minute)), after(minutes=minute))
    return state


def test_a_spent_budget_defers_until_it_has_room_again() -> None:
    _, request = asked(spent(), after(minutes=45), observed_generation=4)
    assert request.outcome is OutcomeKind.DEFERRED
    assert request.retry_at == after(minutes=70)
    assert "force" in request.detail


def test_only_the_force_of_a_human_passes_a_spent_budget() -> None:
    _, forced = asked(spent(), after(minutes=45), requested_by="admin", observed_generation=4, force=True)
    _, unforced = asked(spent(), after(minutes=45), requested_by="admin", observed_generation=4)
    _, pretended = asked(spent(), after(minutes=45), observed_generation=4, force=True)
    assert forced.outcome is OutcomeKind.ACCEPTED
    assert unforced.outcome is OutcomeKind.DEFERRED
    assert pretended.outcome is OutcomeKind.DEFERRED


def test_a_frozen_fleet_defers_automatic_requests_and_lets_humans_pass() -> None:
    state = lifecycle.apply(
        online(), FleetFreeze(until=after(minutes=30), reason="beats are not taken in"), T0
    )
    _, automatic = asked(state, LATER, observed_generation=1)
    _, human = asked(state, LATER, observed_generation=1, requested_by="admin:alice")
    assert (automatic.outcome, automatic.retry_at) == (OutcomeKind.DEFERRED, after(minutes=30))
    assert human.outcome is OutcomeKind.ACCEPTED


def test_a_freeze_ends_by_itself() -> None:
    state = lifecycle.apply(online(), FleetFreeze(until=after(minutes=30), reason="storm"), T0)
    assert lifecycle.wake_at(state) == after(minutes=30)
    state = lifecycle.apply(state, lifecycle.Tick(), after(minutes=30))
    assert state.frozen is None


def test_the_incident_is_one_accepted_and_two_joined_and_minutes_later_three_stale() -> None:
    state = heard(online(generation=2), BoxEventKind.STALE, LATER)
    assert phase(state) is Phase.DEGRADED
    outcomes = []
    for who in ("watchdog", "auto-recovery", "admin:core-devops"):
        state, request = asked(state, LATER, requested_by=who, observed_generation=2)
        outcomes.append(request.outcome)
    state = registered(awaiting(state, LATER), LATER)
    for who in ("watchdog", "auto-recovery", "admin:core-devops"):
        state, request = asked(state, after(minutes=14), requested_by=who, observed_generation=2)
        outcomes.append(request.outcome)
    assert outcomes == [OutcomeKind.ACCEPTED, *[OutcomeKind.JOINED] * 2, *[OutcomeKind.STALE] * 3]
    assert state.generation == 3


def test_stop_is_taken_in_a_flight_and_ends_it() -> None:
    state, request = asked(in_flight(), LATER, kind=RequestKind.STOP, requested_by="admin")
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.provisioning is None
    assert lifecycle.due(state, LATER) is Step.CLOSE


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
def test_asking_twice_to_stop_or_delete_joins(kind: RequestKind) -> None:
    state, _ = asked(online(), LATER, kind=kind)
    again, request = asked(state, LATER, kind=kind)
    assert request.outcome is OutcomeKind.JOINED
    assert again.intent is state.intent


def test_start_opens_a_generation_of_a_stopped_workspace() -> None:
    state, _ = asked(online(), LATER, kind=RequestKind.STOP)
    state, request = asked(awaiting(state, LATER), LATER, kind=RequestKind.START)
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == 2
    assert phase(state) is Phase.PROVISIONING


def test_start_of_a_running_workspace_joins_and_launches_nothing() -> None:
    for state in (online(), in_flight()):
        again, request = asked(state, LATER, kind=RequestKind.START)
        assert request.outcome is OutcomeKind.JOINED
        assert again.generation == state.generation


def test_start_takes_up_a_workspace_that_failed() -> None:
    state = awaiting(new())
    while phase(state) is not Phase.FAILED or state.retry_recreate_at is not None:
        at = lifecycle.wake_at(state)
        assert at is not None
        state = awaiting(lifecycle.apply(state, lifecycle.Tick(), at), at)
    assert state.budget.exhausted
    before = state.generation
    state, request = asked(state, after(hours=9), kind=RequestKind.START, requested_by="admin")
    assert request.outcome is OutcomeKind.ACCEPTED
    assert state.generation == before + 1
    assert not state.budget.exhausted


def test_an_unknown_request_is_rejected_and_stays_visible() -> None:
    state, request = asked(online(), LATER, kind=RequestKind.UNKNOWN)
    assert request.outcome is OutcomeKind.REJECTED
    assert state.requests[-1] is request


def test_outcomes_that_are_not_recorded_yet_are_never_dropped() -> None:
    state = online(generation=2)
    for _ in range(700):
        state, _ = asked(state, LATER, observed_generation=1)
    assert state.unrecorded == 701  # with the recreate that made generation 2
    assert len(state.requests) == 701


def test_a_program_cannot_pass_a_spent_budget_by_start() -> None:
    state = awaiting(new())
    while phase(state) is not Phase.FAILED or state.retry_recreate_at is not None:
        at = lifecycle.wake_at(state)
        assert at is not None
        state = awaiting(lifecycle.apply(state, lifecycle.Tick(), at), at)
    _, program = asked(state, after(hours=9), kind=RequestKind.START)
    _, human = asked(state, after(hours=9), kind=RequestKind.START, requested_by="admin")
    assert (program.outcome, human.outcome) == (OutcomeKind.DEFERRED, OutcomeKind.ACCEPTED)


@st.composite
def remembered(draw: st.DrawFn) -> tuple[State, list[Request]]:
    """A state with some requests, the newest of them not recorded yet, and what the record knows."""
    minutes = draw(st.lists(st.integers(1, 400), unique=True, max_size=12).map(sorted))
    state = new()
    for minute in minutes:
        state, _ = asked(state, after(minutes=minute), request_id=f"at-{minute}")
    state = replace(state, unrecorded=draw(st.integers(0, len(minutes))))
    ours = {request.request_id: request for request in state.requests}
    decided = draw(st.lists(st.integers(1, 400), unique=True, max_size=250).map(sorted))
    known = [
        ours.get(
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


@given(remembered())
def test_what_the_record_knows_is_remembered_in_its_order_and_the_newest_are_kept(
    case: tuple[State, list[Request]],
) -> None:
    before, decided = case
    after_it = admission.merge_recorded(before, decided)
    assert (after_it.unrecorded, replace(after_it, requests=before.requests)) == (before.unrecorded, before)
    waiting = before.requests[len(before.requests) - before.unrecorded :]
    assert after_it.requests[len(after_it.requests) - before.unrecorded :] == waiting
    recorded = after_it.requests[: len(after_it.requests) - before.unrecorded]
    assert list(recorded) == sorted(recorded, key=lambda request: request.at)
    known = {request.request_id for request in (*before.requests, *decided)}
    assert len(after_it.requests) == min(len(known), KEPT_OUTCOMES)
    assert len({request.request_id for request in after_it.requests}) == len(after_it.requests)


def test_a_request_that_only_the_record_knows_gets_its_answer_again() -> None:
    _, first = asked(online(generation=2), LATER, observed_generation=2, request_id="same")
    state = admission.merge_recorded(online(generation=3), [first])
    again, second = asked(state, after(minutes=20), observed_generation=3, request_id="same")
    assert second is first
    assert again == state
