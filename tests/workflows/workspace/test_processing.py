"""Boxes whose agent does not process work: degraded with the reason, and recreated in time."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    T0,
    after,
    awaiting,
    box_event,
    due,
    enrolled,
    new,
    online,
    registered,
    send_request,
    step_done,
    time_passes,
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import CanaryResult
from workflows.workspace.enums import BoxEventKind, CanaryPolicy, ConditionStatus, ConditionType, Phase, Step
from workflows.workspace.events import BoxChanged, StepFailed, Tick
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import Condition, FleetFreeze, LastError, State, Timings

WHY = "3 delegations were delivered and not acknowledged"
ANSWERED = CanaryResult(answered=True)
MISSED = CanaryResult(answered=False, code="canary_not_finished", detail="no answer within 60 s")
TICK = Tick()


def unresponsive(
    state: State, at: datetime, *, generation: int | None = None, event_at: datetime | None = None
) -> State:
    event = BoxChanged(
        kind=BoxEventKind.NOT_PROCESSING,
        generation=generation or state.generation,
        at=event_at or at,
        detail=WHY,
    )
    return lifecycle.apply(state, event, at)


def processes(state: State, at: datetime) -> State:
    return box_event(state, BoxEventKind.PROCESSING, at)


def ticked(state: State, at: datetime) -> State:
    return time_passes(state, at)


def processing(state: State) -> Condition:
    return next(it for it in state.conditions if it.type is ConditionType.PROCESSING)


def self_requests(state: State) -> list[Request]:
    return [it for it in state.requests if it.requested_by == "lifecycle"]


def error(state: State) -> LastError | None:
    return next((it for it in state.errors if it.phase is Step.PROCESS), None)


def woken(state: State, *, until: datetime) -> State:
    """Let only the timers fire."""
    for _ in range(100):
        at = lifecycle.wake_at(state)
        if at is None or at > until:
            return state
        state = ticked(state, at)
    pytest.fail("the timers never end")


def test_a_box_that_does_not_process_work_is_degraded_with_the_reason() -> None:
    state = unresponsive(online(), after(100))
    assert phase(state) is Phase.DEGRADED
    it = processing(state)
    assert (it.status, it.reason, it.message) == (ConditionStatus.FALSE, "NotProcessing", WHY)
    assert it.last_transition_at == after(100)
    last = state.last_error
    assert last is not None
    assert (last.code, last.phase, last.generation) == ("not_processing", Step.PROCESS, 1)
    assert last.retryable
    assert WHY in last.message
    assert self_requests(state) == []


def test_a_repeated_event_changes_nothing() -> None:
    state = unresponsive(online(), after(100))
    again = unresponsive(state, after(150))
    assert again == state
    assert lifecycle.wake_at(again) == after(280)


def test_a_recreate_is_requested_once_after_three_minutes() -> None:
    state = unresponsive(online(), after(100))
    assert lifecycle.wake_at(state) == after(280)
    early = ticked(state, after(279))
    assert (early.generation, self_requests(early)) == (1, [])
    state = ticked(early, after(280))
    [own] = self_requests(state)
    assert (own.kind, own.outcome, own.observed_generation) == (RequestKind.RECREATE, OutcomeKind.ACCEPTED, 1)
    assert "does not process" in own.reason
    assert state.generation == 2
    state = awaiting(state, after(281))
    assert self_requests(woken(state, until=after(minutes=9))) == [own]


def test_an_agent_that_recovers_in_time_is_online_again() -> None:
    state = processes(unresponsive(online(), after(100)), after(200))
    assert phase(state) is Phase.ONLINE
    assert state.last_error is None
    assert processing(state).status is ConditionStatus.TRUE
    assert lifecycle.wake_at(state) is None
    assert ticked(state, after(280)).generation == 1
    # a later failure gets three minutes again
    assert lifecycle.wake_at(unresponsive(state, after(300))) == after(480)


def test_the_error_stays_until_the_next_box_processes_work() -> None:
    state = ticked(unresponsive(online(), after(100)), after(280))
    state = awaiting(state, after(281))
    assert error(state) is not None
    assert processing(state).status is ConditionStatus.UNKNOWN  # nothing is known of the new box
    state = registered(state, after(300))
    assert phase(state) is Phase.ONLINE
    assert error(state) is not None
    assert error(processes(state, after(400))) is None


def test_a_deferred_request_is_repeated_while_the_agent_is_unresponsive() -> None:
    frozen = FleetFreeze(until=after(600), reason="the fleet is frozen")
    state = lifecycle.apply(unresponsive(online(), after(100)), frozen, after(101))
    state = woken(state, until=after(599))
    [own] = self_requests(state)
    assert (own.outcome, own.retry_at) == (OutcomeKind.DEFERRED, after(600))
    assert (state.generation, phase(state)) == (1, Phase.DEGRADED)
    again = woken(state, until=after(600))
    assert [it.outcome for it in self_requests(again)] == [OutcomeKind.DEFERRED, OutcomeKind.ACCEPTED]
    assert again.generation == 2
    recovered = woken(processes(state, after(590)), until=after(hours=2))
    assert (self_requests(recovered), recovered.generation) == ([own], 1)


def test_backoff_and_budget_limit_recreates_of_boxes_that_never_process() -> None:
    state, at = online(), T0
    for _ in range(60):
        if phase(state) is Phase.ONLINE:
            state = unresponsive(state, at)
        at = max(at, lifecycle.wake_at(state) or at + timedelta(minutes=1))
        if at > after(minutes=59):
            break
        state = ticked(state, at)
        if state.provisioning is not None:
            state = registered(awaiting(state, at), at)
    accepted = [it.at for it in self_requests(state) if it.outcome is OutcomeKind.ACCEPTED]
    assert len(accepted) == 3  # the budget of an hour
    assert accepted[1] - accepted[0] >= timedelta(minutes=3)  # each box has three minutes
    assert accepted[2] - accepted[1] >= timedelta(minutes=3.2)  # backoff of 4 min, within 20 %
    assert state.exhausted
    assert phase(state) is Phase.DEGRADED
    assert lifecycle.wake_at(state) is None


def test_a_manual_recreate_in_the_meantime_makes_the_own_request_unnecessary() -> None:
    state, decided = send_request(
        unresponsive(online(), after(100)), after(150), requested_by="admin:alice", observed_generation=1
    )
    assert decided.outcome is OutcomeKind.ACCEPTED
    state = registered(awaiting(state, after(151)), after(152))
    assert self_requests(woken(state, until=after(hours=1))) == []


def test_an_unresponsive_box_is_replaced_during_provisioning() -> None:
    state = box_event(awaiting(new()), BoxEventKind.REGISTERED, after(10))
    state = unresponsive(state, after(150))  # it accepted work, and its first heartbeat comes late
    state = box_event(state, BoxEventKind.ALIVE, after(200))
    assert woken(state, until=after(hours=1)).generation == 2


def test_a_box_recorded_as_unresponsive_is_replaced_after_a_restart_of_the_workflow() -> None:
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


def test_a_late_older_event_does_not_degrade_a_processing_agent() -> None:
    state = processes(online(), after(200))
    assert phase(unresponsive(state, after(201), event_at=after(100))) is Phase.ONLINE


@pytest.mark.parametrize("kind", [RequestKind.STOP, RequestKind.DELETE])
def test_a_stopping_workspace_requests_no_recreate(kind: RequestKind) -> None:
    state, _ = send_request(
        unresponsive(online(), after(100)), after(150), kind=kind, requested_by="admin:alice"
    )
    state = woken(awaiting(state, after(151)), until=after(hours=1))
    assert self_requests(state) == []


_EVENTS = st.sampled_from(
    [
        *BoxEventKind,
        "answered",
        "missed",
        "canary_failed",
        "frozen",
        "tick",
        *["wake"] * 3,
        "admin",
        RequestKind.STOP,
        RequestKind.START,
    ]
)


def _next(state: State, event: object, at: datetime) -> State:
    match event:
        case BoxEventKind():
            return box_event(
                state, event, at, generation=max(1, state.generation - (event == "superseded_call"))
            )
        case "answered" | "missed" if due(state, at) is Step.CANARY:
            return lifecycle.apply(state, ANSWERED if event == "answered" else MISSED, at)
        case "canary_failed" if due(state, at) is Step.CANARY:
            failed = StepFailed(step=Step.CANARY, code="AnyCode", message="", hint="", retryable=True)
            return lifecycle.apply(state, failed, at)
        case "frozen":
            until = at + timedelta(minutes=7)
            return lifecycle.apply(state, FleetFreeze(until=until, reason="the fleet is frozen"), at)
        case "admin":
            return send_request(state, at, requested_by="admin:a", observed_generation=state.generation)[0]
        case RequestKind():
            return send_request(state, at, kind=event, requested_by="admin:a")[0]
        case _:
            return ticked(state, at)


@given(
    st.sampled_from(CanaryPolicy), st.lists(st.tuples(_EVENTS, st.integers(0, 400)), min_size=1, max_size=30)
)
def test_timers_never_loop_and_an_unresponsive_agent_is_never_online(
    policy: CanaryPolicy, history: list[tuple[object, int]]
) -> None:
    state, at = awaiting(new(timings=Timings(canary=policy))), T0
    for event, seconds in history:
        woken_at = lifecycle.wake_at(state) if event == "wake" else at + timedelta(seconds=seconds)
        at = max(at, woken_at or at)
        state = _next(state, event, at)
        while due(state, at) not in (None, Step.CANARY):
            state = step_done(state, at, timings=state.timings)
        if phase(state) is Phase.ONLINE:
            assert state.box.agent_unresponsive_since is None
            assert processing(state).status is not ConditionStatus.FALSE
        for _ in range(3):  # several deadlines may pass at one time
            if (lifecycle.wake_at(state) or after(hours=1000)) > at or due(state, at) is not None:
                break
            state = ticked(state, at)
        else:
            pytest.fail(f"a timer loops at {lifecycle.wake_at(state)}: {state.box}")
