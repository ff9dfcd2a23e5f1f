"""The lifecycle of a workspace: facts in, the next step out. Standard library only.

`apply` takes a fact in, in whatever order facts come; `due` says which step is next, and `wake_at` when to
look again. Nothing here waits, calls or knows the time: it is an argument.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from workflows import conditions, consulting, deadlines, steps, volumes
from workflows.admission import admit
from workflows.errors import cleared, noted
from workflows.explaining import CREDENTIAL_LOST
from workflows.facts import (
    AddressResult,
    AttachResult,
    BoxChanged,
    BoxFactKind,
    CanaryResult,
    Consulted,
    Enrolled,
    Evicted,
    FenceObserved,
    GenerationOpened,
    LaunchResult,
    SnapshotSettled,
    StepFailed,
    StraysEnded,
    VolumeDetached,
)
from workflows.requests import Ask, OutcomeKind, Request
from workflows.state import Frozen, Intent, RegistrationSeen, State, Step

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
class RecordAhead:
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
    | SnapshotSettled
    | AttachResult
    | VolumeDeleted
    | CanaryResult
    | RegistrationSeen
    | Evicted
    | Consulted
    | StraysEnded
    | StepFailed
    | RecordAhead
    | BoxChanged
    | Frozen
)


def apply(state: State, event: Event, at: datetime) -> State:
    """Take one fact in."""
    state = deadlines.passed(_taken_in(state, event, at), at)
    return conditions.refreshed(consulting.settled(_arrived(state, at), at), at)


def request(state: State, ask: Ask, at: datetime) -> tuple[State, Request | None]:
    """Decide a request, and set out for what it asks if it is accepted.

    None if it has to wait for the fleet's word; it is in `pending` then.
    """
    state, decided = admit(state, ask, at)
    # Only what was taken up changes anything for those that wait: hundreds may, and a task has two seconds.
    if decided is not None and decided.outcome is OutcomeKind.ACCEPTED:
        state = consulting.settled(state, at)
    return conditions.refreshed(state, at), decided


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
            return volumes.due_before_deleted(state) if state.address_removed else Step.REMOVE_ADDRESS
        return Step.EVICT if state.strays else None
    if state.pending:
        return Step.CONSULT
    if state.flight is not None:
        if state.opened < state.generation:
            return Step.OPEN
        if not state.fence.confirmed:
            return Step.FENCE
        if (moving := volumes.due_before_launch(state)) is not None:
            return moving
        if state.box.instance_id is None:
            return Step.LAUNCH
        if (attaching := volumes.due_before_address(state)) is not None:
            return attaching
        if state.box.running_since is None:
            return Step.ADDRESS
        if state.box.inquiring:
            return Step.INQUIRE
    if state.intruder is not None or state.strays:
        return Step.EVICT
    if deadlines.asks_canary(state):
        return Step.CANARY
    return None


def is_still_wanted(step: Step, begun: State, now: State) -> bool:
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
        state.ask_again_at,
    ]
    if not state.box.inquiring:
        times.append(deadlines.register_deadline(state))
    if state.retry is not None and _next_step(state) is state.retry.step:
        times.append(state.retry.not_before)
    if state.frozen is not None:
        times.append(state.frozen.until)
    return min((time for time in times if time is not None), default=None)


def _taken_in(state: State, event: Event, at: datetime) -> State:
    match event:
        case Tick():
            return state
        case Enrolled():
            return steps.enrolled(state, event, at)
        case GenerationOpened():
            return steps.opened(state, event)
        case Closed():
            return steps.succeeded(replace(state, closed=True), Step.CLOSE)
        case FenceObserved():
            return steps.fenced(state, event, at)
        case LaunchResult():
            return steps.launched(state, event, at)
        case AddressResult():
            return steps.addressed(state, event, at)
        case AddressRemoved():
            return steps.succeeded(replace(state, address_removed=True), Step.REMOVE_ADDRESS)
        case VolumeDetached():
            return volumes.detached(state, event)
        case SnapshotSettled():
            return volumes.snapshot_settled(state, event, at)
        case AttachResult():
            return volumes.attached(state, event, at)
        case VolumeDeleted():
            return volumes.deleted(state)
        case CanaryResult():
            return steps.canary_asked(state, event, at)
        case RegistrationSeen():
            return steps.inquired(state, event, at)
        case Evicted():
            return steps.succeeded(replace(state, intruder=None), Step.EVICT)
        case Consulted():
            return consulting.consulted(state, event, at)
        case StepFailed(step=Step.CONSULT):
            return consulting.consulted(state, consulting.unreadable(event), at)
        case StraysEnded():
            return steps.strays_ended(state, event)
        case StepFailed():
            return steps.failed(state, event, at)
        case RecordAhead():
            # With a pause: a record that stays ahead, as after a restore, must not make a storm.
            return steps.read_again(state, at)
        case BoxChanged():
            return _box_changed(state, event, at)
        case Frozen(until=until):
            return replace(state, frozen=event if until > at else None)
        case _ as never:
            assert_never(never)


def _arrived(state: State, at: datetime) -> State:
    """End the flight once everything is there that `online` stands for, however late it came."""
    if state.online_since is not None or state.intent is not Intent.RUN or not conditions.is_serving(state):
        return state
    return replace(
        state,
        flight=None,
        online_since=at,
        halted=False,
        ask_again_at=None,
        recovery=replace(state.recovery, exhausted=False, failures=()),
        errors=cleared(state.errors, Step.AWAIT_REGISTRATION),
    )


def _box_changed(state: State, event: BoxChanged, at: datetime) -> State:
    if event.generation > state.generation:
        return replace(state, enrolled=False)  # the record is ahead of us: read it
    if event.kind is BoxFactKind.INTRUDER:
        return _intruded(state, event.generation)
    if event.kind is BoxFactKind.STRAY:
        return steps.stray_seen(state, event.detail)
    if event.generation < state.generation or state.intent is not Intent.RUN:
        return state
    box, older = state.box, state.box.heard_at is not None and event.at < state.box.heard_at
    match event.kind:
        case BoxFactKind.REGISTERED:
            return replace(state, box=replace(box, registered_at=box.registered_at or event.at))
        case BoxFactKind.BEATING | BoxFactKind.SILENT | BoxFactKind.CREDENTIAL_LOST if older:
            return state
        case BoxFactKind.BEATING:
            if box.credential_lost_at is not None:
                state = replace(state, errors=cleared(state.errors, Step.AWAIT_REGISTRATION))
            return replace(state, box=steps.beating(box, event.at, at))
        case BoxFactKind.SILENT:
            return replace(state, box=replace(box, silent_since=event.at, heard_at=event.at))
        case BoxFactKind.NOT_PROCESSING | BoxFactKind.PROCESSING if (
            box.processing_heard_at is not None and event.at < box.processing_heard_at
        ):
            return state
        case BoxFactKind.NOT_PROCESSING if box.not_processing_since is not None:
            return state
        case BoxFactKind.NOT_PROCESSING:
            state = replace(state, box=replace(box, processing_heard_at=event.at))
            return steps.not_processing(state, event.detail or NOT_PROCESSING, at)
        case BoxFactKind.PROCESSING:
            return steps.processing(replace(state, box=replace(box, processing_heard_at=event.at)), at)
        case BoxFactKind.UNCLAIMED:
            return steps.unclaimed_seen(state, at)
        case BoxFactKind.CREDENTIAL_LOST:
            errors = noted(state, _credential_lost(), at)
            lost = replace(box, credential_lost_at=event.at, heard_at=event.at)
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


def _intruded(state: State, generation: int) -> State:
    """A superseded box called. While its fence goes on, or nothing runs by intent, that says nothing new."""
    if generation >= state.generation or state.intent is not Intent.RUN or not state.fence.confirmed:
        return state
    return replace(state, intruder=generation)
