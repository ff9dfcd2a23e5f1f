"""Stop, start and delete: accepted in every state, idempotent, and final where they should be."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import (
    NO_CANARY,
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
)
from workflows.workspace import lifecycle
from workflows.workspace.conditions import phase
from workflows.workspace.contract import AddressResult, FenceObserved, LaunchResult
from workflows.workspace.enums import BoxEventKind, Intent, Phase, Step
from workflows.workspace.events import StateBehindRecord, StepFailed, Tick
from workflows.workspace.phases.launch import LAUNCH
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Provisioning, State

NOW = after(hours=3)
ALICE = "admin:alice"
INTENTS = (RequestKind.STOP, RequestKind.DELETE)


def up_to(state: State, step: Step) -> State:
    """Run the due steps until this one is due."""
    while due(state, T0) is not step:
        state = step_done(state, T0)
    return state


def recreating() -> State:
    return send_request(online(), T0, requested_by=ALICE, observed_generation=1)[0]


def intended(kind: RequestKind, state: State | None = None) -> State:
    return send_request(state or online(), T0, kind=kind, requested_by=ALICE)[0]


def refused(step: Step) -> State:
    failure = StepFailed(step=step, code="AuthFailure", message="no", hint="fix it", retryable=False)
    return lifecycle.apply(up_to(new(), step), failure, T0)


def unconfirmed() -> State:
    seen = FenceObserved(terminated=(), alive=("i-0000000000000dead",), missing=())
    state = up_to(recreating(), Step.FENCE)
    for minute in range(11):
        state = lifecycle.apply(state, seen, after(minutes=minute))
    return state


def pending() -> State:
    return send_request(online(), T0, requested_by="watchdog", observed_generation=1)[0]


STATES: dict[str, Callable[[], State]] = {
    "new": new,
    **{
        f"provisioning, {step} is due": lambda step=step: up_to(new(), step)  # type: ignore[misc]
        for step in (Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS)
    },
    "awaiting registration": lambda: awaiting(new()),
    "registered without heartbeats": lambda: box_event(awaiting(new()), BoxEventKind.REGISTERED, T0),
    "online": online,
    "degraded by missed heartbeats": lambda: box_event(online(), BoxEventKind.STALE, T0),
    "degraded by an unresponsive agent": lambda: box_event(online(), BoxEventKind.NOT_PROCESSING, T0),
    "without its credential": lambda: box_event(online(), BoxEventKind.CREDENTIAL_LOST, T0),
    "waiting for a fleet permit": pending,
    **{
        f"recreating, {step} is due": lambda step=step: up_to(recreating(), step)  # type: ignore[misc]
        for step in (Step.OPEN, Step.FENCE, Step.LAUNCH, Step.ADDRESS)
    },
    "its fence unconfirmed": unconfirmed,
    "out of capacity": lambda: lifecycle.apply(
        up_to(new(), Step.LAUNCH), LaunchResult(capacity_code="Unsupported"), T0
    ),
    "its instance ended": lambda: lifecycle.apply(up_to(new(), Step.ADDRESS), AddressResult(gone=True), T0),
    "failed to launch": lambda: refused(Step.LAUNCH),
    "failed to open": lambda: refused(Step.OPEN),
    "a superseded caller to terminate": lambda: box_event(
        online(generation=2), BoxEventKind.SUPERSEDED_CALL, T0, generation=1
    ),
    "an orphan to terminate": lambda: box_event(online(), BoxEventKind.ORPHAN, T0),
    "behind the record": lambda: lifecycle.apply(online(), StateBehindRecord(), T0),
    "stopping": lambda: intended(RequestKind.STOP),
    "stopping, its tokens revoked": lambda: step_done(intended(RequestKind.STOP), T0),
    "stopped": lambda: awaiting(intended(RequestKind.STOP)),
    "started again": lambda: intended(RequestKind.START, awaiting(intended(RequestKind.STOP))),
}
DELETING: dict[str, Callable[[], State]] = {
    "deleting": lambda: intended(RequestKind.DELETE),
    "deleting, its tokens revoked": lambda: step_done(intended(RequestKind.DELETE), T0),
    "deleting, its boxes gone": lambda: up_to(intended(RequestKind.DELETE), Step.REMOVE_ADDRESS),
    "deleted": lambda: awaiting(intended(RequestKind.DELETE)),
}
FINAL = {RequestKind.STOP: Phase.STOPPED, RequestKind.DELETE: Phase.DELETED}


def carried_out(state: State) -> tuple[State, list[Step]]:
    """Run the due steps and the retries until nothing is due."""
    steps, at = list[Step](), NOW
    while True:
        at = max(at, lifecycle.wake_at(state) or at)
        state = lifecycle.apply(state, Tick(), at)
        step = due(state, at)
        if step is None:
            return state, steps
        steps.append(step)
        assert len(steps) < 20
        if step is Step.ENROLL:
            known = enrolled(generation=state.opened, timings=NO_CANARY)
            state = lifecycle.apply(state, known, at)
        else:
            state = step_done(state, at)


def late(state: State, kind: RequestKind | BoxEventKind, *, offset: int, manual: bool) -> State:
    """The state after a delayed message about this generation or an earlier one."""
    generation = max(1, state.generation - offset)
    if isinstance(kind, BoxEventKind):
        return box_event(state, kind, NOW, generation=generation)
    return send_request(
        state,
        NOW,
        kind=kind,
        requested_by=ALICE if manual else "watchdog",
        observed_generation=generation if kind is RequestKind.RECREATE else None,
        force=manual,
        instance_id="i-0000000000000dead",
    )[0]


@pytest.mark.parametrize("kind", INTENTS)
@pytest.mark.parametrize("name", STATES)
def test_stop_and_delete_complete_from_every_state(name: str, kind: RequestKind) -> None:
    state, request = send_request(STATES[name](), NOW, kind=kind, requested_by=ALICE)
    assert request.outcome in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED)
    state, steps = carried_out(state)
    assert phase(state) is FINAL[kind]
    assert not {Step.OPEN, Step.LAUNCH, Step.ADDRESS, Step.CANARY} & set(steps), "it started something"
    wanted = [Step.CLOSE, Step.FENCE] + ([Step.REMOVE_ADDRESS] if kind is RequestKind.DELETE else [])
    if request.outcome is OutcomeKind.ACCEPTED:
        assert [step for step in steps if step in wanted] == wanted


@pytest.mark.parametrize("kind", INTENTS)
@pytest.mark.parametrize("name", STATES)
def test_a_repeated_stop_or_delete_joins(name: str, kind: RequestKind) -> None:
    once, _ = send_request(STATES[name](), NOW, kind=kind, requested_by=ALICE)
    twice, request = send_request(once, NOW, kind=kind, requested_by="admin:bob")
    assert request.outcome is OutcomeKind.JOINED
    assert replace(twice, requests=(), unrecorded=0) == replace(once, requests=(), unrecorded=0)


@pytest.mark.parametrize("name", STATES)
def test_delete_follows_stop_and_stop_never_follows_delete(name: str) -> None:
    stopping, _ = send_request(STATES[name](), NOW, kind=RequestKind.STOP, requested_by=ALICE)
    deleting, request = send_request(stopping, NOW, kind=RequestKind.DELETE, requested_by=ALICE)
    assert request.outcome is OutcomeKind.ACCEPTED
    back, request = send_request(deleting, NOW, kind=RequestKind.STOP, requested_by=ALICE)
    assert request.outcome is OutcomeKind.REJECTED
    assert phase(carried_out(back)[0]) is Phase.DELETED


@pytest.mark.parametrize("name", [name for name in STATES if "new" not in name])
def test_start_ends_online_from_every_state(name: str) -> None:
    """A recreate in progress continues, a running box stays, and other workspaces get a box."""
    state, request = send_request(STATES[name](), NOW, kind=RequestKind.START, requested_by=ALICE)
    assert request.outcome in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED)
    state, _ = carried_out_with_a_box(state)
    assert state.intent is Intent.RUN
    assert phase(state) is Phase.ONLINE


def carried_out_with_a_box(state: State) -> tuple[State, int]:
    """Like `carried_out`, with boxes that register and process work as soon as they run."""
    for count in range(40):
        step = due(state, NOW)
        if step is Step.ENROLL:
            state = lifecycle.apply(state, enrolled(generation=state.opened, timings=NO_CANARY), NOW)
        elif step is not None:
            state = step_done(state, NOW)
        elif state.retry is not None and phase(state) is not Phase.ONLINE:
            state = lifecycle.apply(replace(state, retry=None), Tick(), NOW)
        elif phase(state) is not Phase.ONLINE and state.box.running_since is not None:
            state = box_event(registered(state, NOW), BoxEventKind.PROCESSING, NOW)
        else:
            return state, count
    raise AssertionError("steps never end")


MESSAGES = st.tuples(st.sampled_from([*RequestKind, *BoxEventKind]), st.integers(0, 3), st.booleans())


@settings(max_examples=100)
@given(name=st.sampled_from([*DELETING]), messages=st.lists(MESSAGES, max_size=12))
def test_no_late_message_undoes_a_deletion(
    name: str, messages: list[tuple[RequestKind | BoxEventKind, int, bool]]
) -> None:
    state = DELETING[name]()
    for kind, offset, manual in messages:
        before = state
        state = late(state, kind, offset=offset, manual=manual)
        assert state.intent is Intent.DELETE
        assert state.provisioning is None
        assert state.generation == before.generation
        assert not state.pending
    for request in state.requests[1:]:
        assert request.outcome in (OutcomeKind.REJECTED, OutcomeKind.JOINED)
    state, steps = carried_out(state)
    assert phase(state) is Phase.DELETED
    assert set(steps) <= {Step.CLOSE, Step.FENCE, Step.REMOVE_ADDRESS, Step.ENROLL}


@settings(max_examples=100)
@given(
    name=st.sampled_from(["stopping", "stopping, its tokens revoked", "stopped"]),
    messages=st.lists(MESSAGES, max_size=12),
)
def test_only_a_start_ends_a_stop(
    name: str, messages: list[tuple[RequestKind | BoxEventKind, int, bool]]
) -> None:
    state = STATES[name]()
    for kind, offset, manual in messages:
        if kind in (RequestKind.START, RequestKind.DELETE):
            continue
        state = late(state, kind, offset=offset, manual=manual)
        assert state.intent is Intent.STOP
        assert state.provisioning is None
    state, steps = carried_out(state)
    assert phase(state) is Phase.STOPPED
    assert not {Step.OPEN, Step.LAUNCH, Step.ADDRESS} & set(steps)


def test_the_result_of_a_step_that_a_deletion_overtook_starts_nothing() -> None:
    """A launch was in progress when the deletion was accepted: the fence terminates its box."""
    before = up_to(new(), Step.LAUNCH)
    state, _ = send_request(before, NOW, kind=RequestKind.DELETE, requested_by=ALICE)
    assert not lifecycle.result_still_applies(LAUNCH, before, state)
    state, steps = carried_out(state)
    assert steps == [Step.CLOSE, Step.FENCE, Step.REMOVE_ADDRESS]
    assert state.provisioning != Provisioning(generation=1, since=T0)
