"""The lifecycle of a workspace as a pure state machine: events in, the next step out. Standard library only.

`apply` applies an event, in whatever order events arrive. `due` is the step to run now, and `wake_at` the
time of the next deadline. Time is an argument.
"""

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from workflows.shared.step_result import StepResult
from workflows.workspace import backoff, conditions
from workflows.workspace.admission import admit
from workflows.workspace.enums import BoxEventKind, Intent, Step
from workflows.workspace.events import (
    BoxChanged,
    Event,
    StateBehindRecord,
    StepFailed,
    Tick,
)
from workflows.workspace.phases import plan
from workflows.workspace.phases.canary import agent_processing, agent_unresponsive
from workflows.workspace.phases.definition import Deadline, StepDefinition
from workflows.workspace.phases.enroll import reload_record
from workflows.workspace.phases.evict import orphan_found, superseded_call
from workflows.workspace.phases.fleet_permit import decide_pending
from workflows.workspace.phases.launch import unrecorded_instance_found
from workflows.workspace.phases.registration import credential_lost, heartbeat_received
from workflows.workspace.phases.transitions import clear_failure, request_recreate, step_failed
from workflows.workspace.requests import OutcomeKind, Request, RequestInput
from workflows.workspace.state import BackingOff, FleetFreeze, Settled, State

NOT_PROCESSING = "it accepts work and does not process it"


def apply(state: State, event: Event, at: datetime) -> State:
    """The state after an event, and after every deadline that has passed."""
    state = _apply_deadlines(_reduce(state, event, at), at)
    return conditions.refresh(decide_pending(_complete_provisioning(state, at), at), at)


def request(state: State, request_input: RequestInput, at: datetime) -> tuple[State, Request | None]:
    """The state after a request, and its outcome; None while the request waits for a fleet permit."""
    state, decided = admit(state, request_input, at)
    # Only an accepted request changes anything for pending ones. There may be hundreds, and a workflow task
    # has two seconds.
    if decided is not None and decided.outcome is OutcomeKind.ACCEPTED:
        state = decide_pending(state, at)
    return conditions.refresh(state, at), decided


def due(state: State, now: datetime) -> StepDefinition | None:
    """The step to run now; None while the workspace waits."""
    step = plan.next_step(state)
    if step is not None and state.retry is not None and state.retry.step is step.step:
        return step if now >= state.retry.not_before else None
    return step


def result_still_applies(step: StepDefinition, begun: State, now: State) -> bool:
    """Whether the result of a step applies to the state at its end; otherwise the step runs again.

    A fence that began for a recreate keeps the box that a later stop must terminate. A close that began for a
    stop does not close for a deletion.
    """
    if step.step is Step.ENROLL:
        return True
    return (begun.generation, begun.intent) == (now.generation, now.intent)


def wake_at(state: State) -> datetime | None:
    """When time alone changes something; None if only an event or a request can."""
    times = [deadline.at(state) for deadline in _DEADLINES]
    step = plan.next_step(state)
    if state.retry is not None and step is not None and step.step is state.retry.step:
        times.append(state.retry.not_before)
    return min((time for time in times if time is not None), default=None)


def _thaw(state: State, _: datetime) -> State:
    return replace(state, frozen=None)


def _request_again(state: State, at: datetime) -> State:
    """Send the deferred request again, unless the box has recovered."""
    state = replace(state, waiting=Settled())
    recovered = conditions.is_reachable(state) and state.box.agent_unresponsive_since is None
    return state if recovered else request_recreate(state, at)


_DEADLINES: tuple[Deadline, ...] = (
    Deadline(at=lambda state: state.frozen.until if state.frozen else None, passed=_thaw),
    *plan.DEADLINES,
    Deadline(
        at=lambda state: state.waiting.until if isinstance(state.waiting, BackingOff) else None,
        passed=_request_again,
    ),
)


def _apply_deadlines(state: State, at: datetime) -> State:
    for deadline in _DEADLINES:
        time = deadline.at(state)
        if time is not None and at >= time:
            state = deadline.passed(state, at)
    return backoff.reset_when_healthy(state, at)


def _reduce(state: State, event: Event, at: datetime) -> State:
    match event:
        case Tick():
            return state
        case StepFailed():
            step = plan.BY_STEP[event.step]
            if step.failed is not None:
                return step.failed(state, event, at)
            return step_failed(state, event, at, halts=step.halts)
        case StateBehindRecord():
            return reload_record(state, at)
        case BoxChanged():
            return _box_changed(state, event, at)
        case FleetFreeze(until=until):
            return replace(state, frozen=event if until > at else None)
        case StepResult():
            return plan.BY_RESULT[type(event)].apply(state, event, at)
        case _ as never:
            assert_never(never)


def _complete_provisioning(state: State, at: datetime) -> State:
    """End the provisioning once the workspace meets every requirement of `online`, however late."""
    if state.online_since is not None or state.intent is not Intent.RUN or not conditions.is_serving(state):
        return state
    return replace(
        clear_failure(state, Step.AWAIT_REGISTRATION),
        waiting=Settled(),
        online_since=at,
        budget=replace(state.budget, failures=()),
    )


def _box_changed(state: State, event: BoxChanged, at: datetime) -> State:
    if event.generation > state.generation:
        return replace(state, enrolled=False)  # PostgreSQL is ahead of this state: read it
    if event.kind is BoxEventKind.SUPERSEDED_CALL:
        return superseded_call(state, event.generation)
    if event.kind is BoxEventKind.ORPHAN:
        return orphan_found(state, event.detail)
    if event.generation < state.generation or state.intent is not Intent.RUN:
        return state
    box = state.box
    older = box.last_liveness_at is not None and event.at < box.last_liveness_at
    match event.kind:
        case BoxEventKind.REGISTERED:
            return replace(state, box=replace(box, registered_at=box.registered_at or event.at))
        case BoxEventKind.ALIVE | BoxEventKind.STALE | BoxEventKind.CREDENTIAL_LOST if older:
            return state
        case BoxEventKind.ALIVE:
            return heartbeat_received(state, event.at, at)
        case BoxEventKind.STALE:
            return replace(state, box=replace(box, stale_since=event.at, last_liveness_at=event.at))
        case BoxEventKind.CREDENTIAL_LOST:
            return credential_lost(state, event.at, at)
        case BoxEventKind.NOT_PROCESSING | BoxEventKind.PROCESSING if (
            box.last_processing_at is not None and event.at < box.last_processing_at
        ):
            return state
        case BoxEventKind.NOT_PROCESSING if box.agent_unresponsive_since is not None:
            return state
        case BoxEventKind.NOT_PROCESSING:
            state = replace(state, box=replace(box, last_processing_at=event.at))
            return agent_unresponsive(state, event.detail or NOT_PROCESSING, at)
        case BoxEventKind.PROCESSING:
            return agent_processing(replace(state, box=replace(box, last_processing_at=event.at)), at)
        case BoxEventKind.UNRECORDED_INSTANCE:
            return unrecorded_instance_found(state, at)
        case _ as never:
            assert_never(never)
