"""The lifecycle of a workspace: facts in, the next step out. Standard library only.

`apply` takes a fact in, in whatever order facts come; `due` says which step is next, and `wake_at` when to
look again. Nothing here waits, calls or knows the time: it is an argument.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from workflows.workspace import conditions, deadlines
from workflows.workspace.admission import admit
from workflows.workspace.diagnosis import CREDENTIAL_LOST
from workflows.workspace.events import (
    AddressResult,
    AttachResult,
    BoxChanged,
    BoxEventKind,
    CanaryResult,
    Enrolled,
    Evicted,
    FenceObserved,
    FleetPermit,
    GenerationOpened,
    LaunchResult,
    OrphansTerminated,
    SnapshotResult,
    StepFailed,
    VolumeDetached,
)
from workflows.workspace.failures import clear_failure, record_failure
from workflows.workspace.phases import fleet_permit, transitions, volume
from workflows.workspace.requests import OutcomeKind, Request, RequestInput
from workflows.workspace.state import FleetFreeze, Intent, RegistrationStatus, State, Step

NOT_PROCESSING = "it takes work, and does nothing about it"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True)
class Closed:
    """PostgreSQL has the intent to stop or delete."""


@dataclass(frozen=True, slots=True)
class AddressRemoved:
    """The DNS name is gone."""


@dataclass(frozen=True, slots=True)
class VolumeDeleted:
    """The data volume of a deleted workspace is gone, or there never was one."""


@dataclass(frozen=True, slots=True)
class StateBehindRecord:
    """PostgreSQL has a newer generation than this workflow knows, as after a reset to an older point."""


Event = (
    Tick
    | Enrolled
    | GenerationOpened
    | Closed
    | FenceObserved
    | LaunchResult
    | AddressResult
    | AddressRemoved
    | VolumeDetached
    | SnapshotResult
    | AttachResult
    | VolumeDeleted
    | CanaryResult
    | RegistrationStatus
    | Evicted
    | FleetPermit
    | OrphansTerminated
    | StepFailed
    | StateBehindRecord
    | BoxChanged
    | FleetFreeze
)


def apply(state: State, event: Event, at: datetime) -> State:
    """Take one fact in."""
    state = deadlines.apply_deadlines(_reduce(state, event, at), at)
    return conditions.refresh(fleet_permit.decide_pending(_complete_provisioning(state, at), at), at)


def request(state: State, request_input: RequestInput, at: datetime) -> tuple[State, Request | None]:
    """Decide a request, and set out for what it asks if it is accepted.

    None if it has to wait for the fleet's word; it is in `pending` then.
    """
    state, decided = admit(state, request_input, at)
    # Only what was taken up changes anything for those that wait: hundreds may, and a task has two seconds.
    if decided is not None and decided.outcome is OutcomeKind.ACCEPTED:
        state = fleet_permit.decide_pending(state, at)
    return conditions.refresh(state, at), decided


def due(state: State, now: datetime) -> Step | None:
    """The step to be done now; None if there is something to wait for, or nothing at all."""
    step = _next_step(state)
    if step is not None and state.retry is not None and state.retry.step is step:
        return step if now >= state.retry.not_before else None
    return step


def _next_step(state: State) -> Step | None:
    if not state.enrolled:
        return Step.ENROLL
    if state.intent is not Intent.RUN:
        if not state.closed:
            return Step.CLOSE
        if not state.fence.confirmed:
            return Step.FENCE
        if state.intent is Intent.DELETE:
            return volume.due_before_deleted(state) if state.address_removed else Step.REMOVE_ADDRESS
        return Step.EVICT if state.orphan_instances else None
    if state.pending:
        return Step.FLEET_PERMIT
    if state.provisioning is not None:
        if state.opened < state.generation:
            return Step.OPEN
        if not state.fence.confirmed:
            return Step.FENCE
        if (moving := volume.due_before_launch(state)) is not None:
            return moving
        if state.box.instance_id is None:
            return Step.LAUNCH
        if (attaching := volume.due_before_address(state)) is not None:
            return attaching
        if state.box.running_since is None:
            return Step.ADDRESS
        if state.box.checking_registration:
            return Step.CHECK_REGISTRATION
    if state.superseded_caller is not None or state.orphan_instances:
        return Step.EVICT
    if deadlines.canary_due(state):
        return Step.CANARY
    return None


def result_still_applies(step: Step, begun: State, now: State) -> bool:
    """Whether the result of a step counts for the state that it meets when it ends.

    A fence that was begun for a recreate spares the box that a stop, accepted meanwhile, wants to be gone;
    a closing that was begun for a stop does not close for a deletion. They are done again.
    """
    if step is Step.ENROLL:
        return True
    return (begun.generation, begun.intent) == (now.generation, now.intent)


def wake_at(state: State) -> datetime | None:
    """When time alone changes something; None if only the outside can."""
    times = [
        deadlines.canary_deadline(state),
        deadlines.processing_deadline(state),
        deadlines.idle_canary_at(state),
        state.retry_recreate_at,
    ]
    if not state.box.checking_registration:
        times.append(deadlines.register_deadline(state))
    if state.retry is not None and _next_step(state) is state.retry.step:
        times.append(state.retry.not_before)
    if state.frozen is not None:
        times.append(state.frozen.until)
    return min((time for time in times if time is not None), default=None)


def _reduce(state: State, event: Event, at: datetime) -> State:
    match event:
        case Tick():
            return state
        case Enrolled():
            return transitions.enrolled(state, event, at)
        case GenerationOpened():
            return transitions.opened(state, event)
        case Closed():
            return transitions.succeeded(replace(state, closed=True), Step.CLOSE)
        case FenceObserved():
            return transitions.fenced(state, event, at)
        case LaunchResult():
            return transitions.launched(state, event, at)
        case AddressResult():
            return transitions.addressed(state, event, at)
        case AddressRemoved():
            return transitions.succeeded(replace(state, address_removed=True), Step.REMOVE_ADDRESS)
        case VolumeDetached():
            return volume.detached(state, event)
        case SnapshotResult():
            return volume.snapshot_decided(state, event, at)
        case AttachResult():
            return volume.attached(state, event, at)
        case VolumeDeleted():
            return volume.deleted(state)
        case CanaryResult():
            return transitions.canary_completed(state, event, at)
        case RegistrationStatus():
            return transitions.registration_checked(state, event, at)
        case Evicted():
            return transitions.succeeded(replace(state, superseded_caller=None), Step.EVICT)
        case FleetPermit():
            return fleet_permit.apply_permit(state, event, at)
        case StepFailed(step=Step.FLEET_PERMIT):
            return fleet_permit.apply_permit(state, fleet_permit.permit_unavailable(event), at)
        case OrphansTerminated():
            return transitions.orphans_terminated(state, event)
        case StepFailed():
            return transitions.failed(state, event, at)
        case StateBehindRecord():
            # With a pause: a record that stays ahead, as after a restore, must not make a storm.
            return transitions.reload_record(state, at)
        case BoxChanged():
            return _box_changed(state, event, at)
        case FleetFreeze(until=until):
            return replace(state, frozen=event if until > at else None)
        case _ as never:
            assert_never(never)


def _complete_provisioning(state: State, at: datetime) -> State:
    """End the provisioning once everything is there that `online` stands for, however late it came."""
    if state.online_since is not None or state.intent is not Intent.RUN or not conditions.is_serving(state):
        return state
    return replace(
        state,
        provisioning=None,
        online_since=at,
        halted=False,
        retry_recreate_at=None,
        budget=replace(state.budget, exhausted=False, failures=()),
        errors=clear_failure(state.errors, Step.AWAIT_REGISTRATION),
    )


def _box_changed(state: State, event: BoxChanged, at: datetime) -> State:
    if event.generation > state.generation:
        return replace(state, enrolled=False)  # the record is ahead of us: read it
    if event.kind is BoxEventKind.SUPERSEDED_CALL:
        return _superseded_call(state, event.generation)
    if event.kind is BoxEventKind.ORPHAN:
        return transitions.orphan_found(state, event.detail)
    if event.generation < state.generation or state.intent is not Intent.RUN:
        return state
    box, older = state.box, state.box.last_liveness_at is not None and event.at < state.box.last_liveness_at
    match event.kind:
        case BoxEventKind.REGISTERED:
            return replace(state, box=replace(box, registered_at=box.registered_at or event.at))
        case BoxEventKind.ALIVE | BoxEventKind.STALE | BoxEventKind.CREDENTIAL_LOST if older:
            return state
        case BoxEventKind.ALIVE:
            if box.credential_lost_at is not None:
                state = replace(state, errors=clear_failure(state.errors, Step.AWAIT_REGISTRATION))
            return replace(state, box=transitions.heartbeat_received(box, event.at, at))
        case BoxEventKind.STALE:
            return replace(state, box=replace(box, stale_since=event.at, last_liveness_at=event.at))
        case BoxEventKind.NOT_PROCESSING | BoxEventKind.PROCESSING if (
            box.last_processing_at is not None and event.at < box.last_processing_at
        ):
            return state
        case BoxEventKind.NOT_PROCESSING if box.agent_unresponsive_since is not None:
            return state
        case BoxEventKind.NOT_PROCESSING:
            state = replace(state, box=replace(box, last_processing_at=event.at))
            return transitions.agent_unresponsive(state, event.detail or NOT_PROCESSING, at)
        case BoxEventKind.PROCESSING:
            return transitions.agent_processing(
                replace(state, box=replace(box, last_processing_at=event.at)), at
            )
        case BoxEventKind.UNRECORDED_INSTANCE:
            return transitions.unrecorded_instance_found(state, at)
        case BoxEventKind.CREDENTIAL_LOST:
            errors = record_failure(state, _credential_lost(), at)
            lost = replace(box, credential_lost_at=event.at, last_liveness_at=event.at)
            return replace(state, box=lost, errors=errors)
        case _ as never:
            assert_never(never)


def _credential_lost() -> StepFailed:
    return StepFailed(
        step=Step.AWAIT_REGISTRATION,
        code=CREDENTIAL_LOST.code,
        message=CREDENTIAL_LOST.message,
        hint=CREDENTIAL_LOST.hint,
        retryable=True,
    )


def _superseded_call(state: State, generation: int) -> State:
    """A superseded box called. While its fence goes on, or nothing runs by intent, that says nothing new."""
    if generation >= state.generation or state.intent is not Intent.RUN or not state.fence.confirmed:
        return state
    return replace(state, superseded_caller=generation)
