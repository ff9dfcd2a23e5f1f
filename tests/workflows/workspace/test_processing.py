"""Boxes that are online with a dead brain: degraded with the reason, and recreated in time."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    asked,
    awaiting,
    enrolled,
    heard,
    new,
    online,
    registered,
    step_done,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.events import BoxChanged, BoxEventKind, CanaryResult, StepFailed
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import (
    CanaryPolicy,
    Condition,
    ConditionStatus,
    ConditionType,
    FleetFreeze,
    LastError,
    Phase,
    State,
    Step,
    Timings,
)

WHY = "3 delegations were delivered and not acknowledged"
ANSWERED = CanaryResult(answered=True)
MISSED = CanaryResult(answered=False, code="canary_not_finished", detail="no answer within 60 s")
TICK = lifecycle.Tick()


def dead(
    state: State, at: datetime, *, generation: int | None = None, told_at: datetime | None = None
) -> State:
    fact = BoxChanged(
        kind=BoxEventKind.NOT_PROCESSING,
        generation=generation or state.generation,
        at=told_at or at,
        detail=WHY,
    )
    return lifecycle.apply(state, fact, at)


def well(state: State, at: datetime) -> State:
    return heard(state, BoxEventKind.PROCESSING, at)


def ticked(state: State, at: datetime) -> State:
    return lifecycle.apply(state, TICK, at)


def processing(state: State) -> Condition:
    return next(it for it in state.conditions if it.type is ConditionType.PROCESSING)


def own_requests(state: State) -> list[Request]:
    return [it for it in state.requests if it.requested_by == "lifecycle"]


def error(state: State) -> LastError | None:
    return next((it for it in state.errors if it.phase is Step.PROCESS), None)


def woken(state: State, *, until: datetime) -> State:
    """Let the timers fire, and nothing else happen."""
    for _ in range(100):
        at = lifecycle.wake_at(state)
        if at is None or at > until:
            return state
        state = ticked(state, at)
    pytest.fail("the timers never come to rest")


def test_a_box_that_takes_work_and_does_nothing_is_degraded_and_says_why() -> None:
    state = dead(online(), after(100))
    assert phase(state) is Phase.DEGRADED
    it = processing(state)
    assert (it.status, it.reason, it.message) == (ConditionStatus.FALSE, "NotProcessing", WHY)
    assert it.last_transition_at == after(100)
    last = state.last_error
    assert last is not None
    assert (last.code, last.phase, last.generation) == ("not_processing", Step.PROCESS, 1)
    assert last.retryable
    assert WHY in last.message
    assert own_requests(state) == []


def test_the_same_news_again_changes_nothing() -> None:
    state = dead(online(), after(100))
    again = dead(state, after(150))
    assert again == state
    assert lifecycle.wake_at(again) == after(280)


def test_a_box_before_is_not_meant() -> None:
    state = online(generation=2)
    assert dead(state, after(100), generation=1) == state


def test_three_minutes_later_another_box_is_asked_for_once() -> None:
    state = dead(online(), after(100))
    assert lifecycle.wake_at(state) == after(280)
    early = ticked(state, after(279))
    assert (early.generation, own_requests(early)) == (1, [])
    state = ticked(early, after(280))
    [own] = own_requests(state)
    assert (own.kind, own.outcome, own.observed_generation) == (RequestKind.RECREATE, OutcomeKind.ACCEPTED, 1)
    assert "does not process" in own.reason
    assert state.generation == 2
    state = awaiting(state, after(281))
    assert own_requests(woken(state, until=after(minutes=9))) == [own]


def test_an_agent_that_processes_again_in_time_is_online_again() -> None:
    state = well(dead(online(), after(100)), after(200))
    assert phase(state) is Phase.ONLINE
    assert state.last_error is None
    assert processing(state).status is ConditionStatus.TRUE
    assert lifecycle.wake_at(state) is None
    assert ticked(state, after(280)).generation == 1
    # another time is another three minutes
    assert lifecycle.wake_at(dead(state, after(300))) == after(480)


def test_the_reason_stays_on_the_record_until_the_next_box_processes() -> None:
    state = ticked(dead(online(), after(100)), after(280))
    state = awaiting(state, after(281))
    assert error(state) is not None
    assert processing(state).status is ConditionStatus.UNKNOWN  # of the new box, nothing is known
    state = registered(state, after(300))
    assert phase(state) is Phase.ONLINE
    assert error(state) is not None
    assert error(well(state, after(400))) is None


def test_a_request_that_is_deferred_is_repeated_while_it_still_does_not_process() -> None:
    frozen = FleetFreeze(until=after(600), reason="the fleet is frozen")
    state = lifecycle.apply(dead(online(), after(100)), frozen, after(101))
    state = woken(state, until=after(599))
    [own] = own_requests(state)
    assert (own.outcome, own.retry_at) == (OutcomeKind.DEFERRED, after(600))
    assert (state.generation, phase(state)) == (1, Phase.DEGRADED)
    again = woken(state, until=after(600))
    assert [it.outcome for it in own_requests(again)] == [OutcomeKind.DEFERRED, OutcomeKind.ACCEPTED]
    assert again.generation == 2
    recovered = woken(well(state, after(590)), until=after(hours=2))
    assert (own_requests(recovered), recovered.generation) == ([own], 1)


def test_spacing_and_budget_bound_boxes_that_never_process() -> None:
    state, at = online(), T0
    for _ in range(60):
        if phase(state) is Phase.ONLINE:
            state = dead(state, at)
        at = max(at, lifecycle.wake_at(state) or at + timedelta(minutes=1))
        if at > after(minutes=59):
            break
        state = ticked(state, at)
        if state.provisioning is not None:
            state = registered(awaiting(state, at), at)
    accepted = [it.at for it in own_requests(state) if it.outcome is OutcomeKind.ACCEPTED]
    assert len(accepted) == 3  # the budget of an hour
    assert accepted[1] - accepted[0] >= timedelta(minutes=3)  # and patience with each of them
    assert accepted[2] - accepted[1] >= timedelta(minutes=3.2)  # spaced 4 min, within 20 %
    assert state.budget.exhausted
    assert phase(state) is Phase.DEGRADED
    assert lifecycle.wake_at(state) is None


def test_a_human_who_asks_meanwhile_leaves_nothing_to_ask_for() -> None:
    state, decided = asked(
        dead(online(), after(100)), after(150), requested_by="admin:alice", observed_generation=1
    )
    assert decided.outcome is OutcomeKind.ACCEPTED
    state = registered(awaiting(state, after(151)), after(152))
    assert own_requests(woken(state, until=after(hours=1))) == []


def test_a_box_that_does_not_process_while_its_flight_lasts_is_replaced_in_time() -> None:
    state = heard(awaiting(new()), BoxEventKind.REGISTERED, after(10))
    state = dead(state, after(150))  # it took work, and its first beat comes late
    state = heard(state, BoxEventKind.ALIVE, after(200))
    assert woken(state, until=after(hours=1)).generation == 2


def test_a_box_whose_record_says_that_it_does_not_process_is_replaced_in_time() -> None:
    record = replace(
        enrolled(generation=1),
        registered_at=T0,
        heartbeat_at=T0,
        agent_unresponsive_since=T0,
        agent_unresponsive_reason=WHY,
    )
    state = lifecycle.apply(State(workspace_id="ws-1"), record, after(60))
    state = woken(awaiting(state, after(60)), until=after(hours=1))
    assert state.generation == 2


def test_older_news_that_comes_late_does_not_take_a_processing_agent_for_dead() -> None:
    state = well(online(), after(200))
    assert phase(dead(state, after(201), told_at=after(100))) is Phase.ONLINE


def test_an_agent_that_came_back_has_three_minutes_again() -> None:
    frozen = FleetFreeze(until=after(1000), reason="the fleet is frozen")
    state = lifecycle.apply(dead(online(), after(100)), frozen, after(101))
    state = well(woken(state, until=after(300)), after(400))
    state = woken(dead(state, after(995)), until=after(1000))
    assert state.generation == 1  # it doesn't process since 5 s


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
def test_nothing_is_asked_for_a_workspace_that_is_to_stop(kind: RequestKind) -> None:
    state, _ = asked(dead(online(), after(100)), after(150), kind=kind, requested_by="admin:alice")
    state = woken(awaiting(state, after(151)), until=after(hours=1))
    assert own_requests(state) == []  # now: one more `rejected` in the list


_EVENTS = st.sampled_from(
    [
        *BoxEventKind,
        "answered",
        "missed",
        "canary_failed",
        "frozen",
        "tick",
        "wake",
        "wake",
        "wake",
        "admin",
        RequestKind.STOP,
        RequestKind.START,
    ]
)


def _next(state: State, event: object, at: datetime) -> State:
    match event:
        case BoxEventKind():
            return heard(state, event, at, generation=max(1, state.generation - (event == "superseded_call")))
        case "answered" | "missed" if lifecycle.due(state, at) is Step.CANARY:
            return lifecycle.apply(state, ANSWERED if event == "answered" else MISSED, at)
        case "canary_failed" if lifecycle.due(state, at) is Step.CANARY:
            failed = StepFailed(step=Step.CANARY, code="AnyCode", message="", hint="", retryable=True)
            return lifecycle.apply(state, failed, at)
        case "frozen":
            until = at + timedelta(minutes=7)
            return lifecycle.apply(state, FleetFreeze(until=until, reason="the fleet is frozen"), at)
        case "admin":
            return asked(state, at, requested_by="admin:a", observed_generation=state.generation)[0]
        case RequestKind():
            return asked(state, at, kind=event, requested_by="admin:a")[0]
        case _:
            return ticked(state, at)


@given(
    st.sampled_from(CanaryPolicy), st.lists(st.tuples(_EVENTS, st.integers(0, 400)), min_size=1, max_size=30)
)
def test_time_never_spins_and_online_is_never_shown_of_a_dead_agent(
    policy: CanaryPolicy, story: list[tuple[object, int]]
) -> None:
    state, at = awaiting(new(timings=Timings(canary=policy))), T0
    for event, seconds in story:
        woken_at = lifecycle.wake_at(state) if event == "wake" else at + timedelta(seconds=seconds)
        at = max(at, woken_at or at)
        state = _next(state, event, at)
        while lifecycle.due(state, at) not in (None, Step.CANARY):
            state = step_done(state, at, timings=state.timings)
        if phase(state) is Phase.ONLINE:
            assert state.box.agent_unresponsive_since is None
            assert processing(state).status is not ConditionStatus.FALSE
        for _ in range(3):  # two deadlines may pass in one moment, and are taken one after the other
            if (lifecycle.wake_at(state) or after(hours=1000)) > at or lifecycle.due(state, at) is not None:
                break
            state = ticked(state, at)
        else:
            pytest.fail(f"a timer fires again and again at {lifecycle.wake_at(state)}: {state.box}")
