"""No history of events, failures and requests breaks an invariant."""

import itertools
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
    NOTHING_SEEN,
    T0,
    after,
    box_event,
    due,
    enrolled,
    failure,
    instance_of,
    never_registering,
    new,
    online,
    send_request,
    step_done,
)
from workflows.workspace import conditions, lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import AddressResult, Enrolled, LaunchResult
from workflows.workspace.enums import BoxEventKind, ConditionType, Phase, Step
from workflows.workspace.events import StateBehindRecord, Tick
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import State

EVENTS = st.sampled_from(
    [
        *["step"] * 3,
        "fail",
        "refuse",
        "gone",
        "capacity",
        "orphan_instances",
        "wake",
        "ahead",
        *BoxEventKind,
        *RequestKind,
        "force",
    ]
)


@settings(max_examples=400)
@given(st.lists(st.tuples(EVENTS, st.integers(0, 3), st.integers(0, 900)), max_size=60))
def test_no_history_breaks_an_invariant(history: list[tuple[str, int, int]]) -> None:
    state, at = State(workspace_id="ws-1", timings=NO_CANARY), T0
    recorded_generation, sent = 0, list[str]()
    for event, offset, seconds in history:
        before, at = state, at + timedelta(seconds=seconds)
        seen = max(0, state.generation - offset + 1) if offset else None
        if event == "force":
            state, request = send_request(
                state, at, requested_by="admin", observed_generation=state.generation, force=True
            )
            sent.append(request.request_id)
        elif event in list(RequestKind):
            state, request = send_request(state, at, kind=RequestKind(event), observed_generation=seen)
            sent.append(request.request_id)
        elif event in list(BoxEventKind):
            state = box_event(state, BoxEventKind(event), at, generation=max(1, state.generation - offset))
        elif event == "wake":
            at = max(at, lifecycle.wake_at(state) or at)
            state = lifecycle.apply(state, Tick(), at)
        elif event == "ahead":
            state = lifecycle.apply(state, StateBehindRecord(), at)
        elif (step := due(state, at)) is not None:
            if event == "fail":
                state = lifecycle.apply(state, failure(step), at)
            elif event == "refuse":
                state = lifecycle.apply(state, failure(step, retryable=False), at)
            elif step is Step.ENROLL:
                known: Enrolled = replace(
                    enrolled(generation=recorded_generation),
                    automatic=state.budget.automatic,
                    accepted=state.budget.accepted,
                )
                state = lifecycle.apply(state, known, at)
            elif event == "gone" and step is Step.ADDRESS:
                state = lifecycle.apply(state, AddressResult(gone=True), at)
            elif event == "capacity" and step is Step.LAUNCH:
                state = lifecycle.apply(state, LaunchResult(capacity_code="Unsupported", offerings=2), at)
            elif event == "orphan_instances" and step is Step.LAUNCH:
                state = lifecycle.apply(state, LaunchResult(orphan_instances=(instance_of(99),)), at)
            else:
                if step is Step.LAUNCH:
                    assert before.fence.confirmed, "I1: a launch without a confirmed fence"
                    assert before.opened == before.generation, "a launch of an unopened generation"
                if step is Step.OPEN:
                    recorded_generation = state.generation
                state = step_done(state, at)
        # Reading the record again may fall back to the recorded generation, never below it.
        assert state.generation >= min(before.generation, recorded_generation)
        assert len(state.requests) >= len(set(sent)), "I2: an outcome is missing"
        if phase(state) is Phase.ONLINE:
            assert conditions.is_serving(state), "I9"
            assert state.provisioning is None
        assert len({error.phase for error in state.errors}) == len(state.errors)
        assert [it.type for it in state.conditions] in ([], list(ConditionType))


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, 3]), st.booleans()), min_size=2, max_size=40))
def test_overlapping_requests_launch_one_instance(requests: list[tuple[int | None, bool]]) -> None:
    state = online(generation=2)
    outcomes = []
    for observed, manual in requests:
        state, request = send_request(
            state,
            after(minutes=10),
            requested_by="admin" if manual else "watchdog",
            observed_generation=observed,
        )
        outcomes.append(request.outcome)
    assert outcomes.count(OutcomeKind.ACCEPTED) <= 1
    assert state.generation == 2 + outcomes.count(OutcomeKind.ACCEPTED)


def test_the_state_survives_continue_as_new() -> None:
    adapter = TypeAdapter(State)
    states = (
        new(),
        online(generation=2),
        never_registering(),
        send_request(online(), T0, kind=RequestKind.STOP)[0],
    )
    for state in itertools.chain(states, (lifecycle.apply(online(), NOTHING_SEEN, T0),)):
        assert adapter.validate_python(adapter.dump_python(state, mode="json")) == state
