"""States to start tests from, reached through the public functions of the lifecycle."""

from datetime import UTC, datetime, timedelta

from workflows.fleet.contract import FleetPermit
from workflows.volume.contract import AttachResult, SnapshotResult, VolumeDetached
from workflows.workspace import lifecycle
from workflows.workspace.contract import (
    AddressResult,
    CanaryResult,
    Enrolled,
    Evicted,
    FenceObserved,
    GenerationOpened,
    LaunchResult,
    OrphansTerminated,
)
from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import ORPHAN_EVENTS, BoxEventKind, CanaryPolicy, Intent, Step
from workflows.workspace.events import (
    AddressRemoved,
    BoxChanged,
    Closed,
    Event,
    StepFailed,
    Tick,
    VolumeDeleted,
)
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import State, Timings

T0 = datetime(2026, 6, 11, 22, 19, tzinfo=UTC)
NO_CANARY = Timings(canary=CanaryPolicy.OFF)
GRANTED = FleetPermit(granted=True)
NOTHING_SEEN = FenceObserved(terminated=(), alive=(), missing=())


def instance_of(generation: int) -> str:
    return f"i-{generation:017x}"


def after(seconds: float = 0, *, minutes: float = 0, hours: float = 0) -> datetime:
    return T0 + timedelta(seconds=seconds, minutes=minutes, hours=hours)


def due(state: State, at: datetime) -> Step | None:
    """The step to run now."""
    step = lifecycle.due(state, at)
    return step.step if step is not None else None


def enrolled(
    *, generation: int = 0, intent: Intent = Intent.RUN, timings: Timings = NO_CANARY, deleted: bool = False
) -> Enrolled:
    return Enrolled(
        intent=intent,
        deleted=deleted,
        generation=generation,
        current=generation > 0 and intent is Intent.RUN,
        revision=0,
        timings=timings,
        attempt=1,
        registered_at=None,
        heartbeat_at=None,
        automatic=(),
        accepted=(),
    )


def new(*, timings: Timings = NO_CANARY) -> State:
    return lifecycle.apply(State(workspace_id="ws-1"), enrolled(timings=timings), T0)


def step_done(state: State, at: datetime, *, timings: Timings = NO_CANARY) -> State:
    """The state after the step that is due has succeeded."""
    generation = state.generation
    results: dict[Step, Event] = {
        Step.ENROLL: enrolled(generation=generation, timings=timings),
        Step.OPEN: GenerationOpened(
            generation=generation, timings=timings, has_volume=state.has_volume, snapshots=state.snapshots
        ),
        Step.FENCE: NOTHING_SEEN,
        Step.LAUNCH: LaunchResult(instance_id=instance_of(generation), private_ip="10.0.0.1"),
        Step.ADDRESS: AddressResult(private_ip="10.0.0.1", dns_name="ws-1.boxes.internal"),
        Step.CANARY: CanaryResult(answered=True),
        Step.CHECK_REGISTRATION: RegistrationStatus(),
        Step.FLEET_PERMIT: GRANTED,
        Step.EVICT: Evicted(instances=())
        if state.superseded_caller is not None
        else OrphansTerminated(instances=state.orphan_instances, terminated=state.orphan_instances),
        Step.CLOSE: Closed(),
        Step.REMOVE_ADDRESS: AddressRemoved(),
        Step.DETACH: VolumeDetached(),
        Step.SNAPSHOT: SnapshotResult(snapshot_id="snap-1"),
        Step.ATTACH: AttachResult(volume_id="vol-1"),
        Step.DELETE_VOLUME: VolumeDeleted(),
    }
    step = due(state, at)
    assert step is not None
    return lifecycle.apply(state, results[step], at)


def awaiting(state: State, at: datetime = T0) -> State:
    """Run all due steps, until the generation awaits its box."""
    while due(state, at) is not None:
        state = step_done(state, at, timings=state.timings)
    return state


def box_event(state: State, kind: BoxEventKind, at: datetime, *, generation: int | None = None) -> State:
    detail = "i-0000000000000abcd" if kind in ORPHAN_EVENTS else ""
    event = BoxChanged(kind=kind, generation=generation or state.generation, at=at, detail=detail)
    return lifecycle.apply(state, event, at)


def registered(state: State, at: datetime) -> State:
    return box_event(box_event(state, BoxEventKind.REGISTERED, at), BoxEventKind.ALIVE, at)


def online(*, generation: int = 1, at: datetime = T0) -> State:
    """This generation online, after manual recreates, all at one time."""
    state = registered(awaiting(new(), at), at)
    for number in range(2, generation + 1):
        state, request = send_request(state, at, requested_by="admin:test", observed_generation=number - 1)
        assert request.outcome is OutcomeKind.ACCEPTED
        state = registered(awaiting(state, at), at)
    return state


def send_request(
    state: State,
    at: datetime,
    *,
    kind: RequestKind = RequestKind.RECREATE,
    requested_by: str = "watchdog",
    observed_generation: int | None = None,
    force: bool = False,
    request_id: str | None = None,
    instance_id: str | None = None,
) -> tuple[State, Request]:
    request_input = RequestInput(
        kind=kind,
        request_id=request_id or f"r{len(state.requests)}",
        requested_by=requested_by,
        observed_generation=observed_generation,
        force=force,
        instance_id=instance_id,
    )
    state, decided = lifecycle.request(state, request_input, at)
    if decided is None:
        state = lifecycle.apply(state, GRANTED, at)
        decided = next(it for it in state.requests if it.request_id == request_input.request_id)
    return state, decided


def permitted(state: State, at: datetime) -> State:
    """Grant a fleet permit to the pending requests."""
    return lifecycle.apply(state, GRANTED, at) if state.pending else state


def time_passes(state: State, at: datetime, *, registration: RegistrationStatus | None = None) -> State:
    """Advance to `at`: a passed register deadline is checked, and the own request gets its permit."""
    state = lifecycle.apply(state, Tick(), at)
    if due(state, at) is Step.CHECK_REGISTRATION:
        state = lifecycle.apply(state, registration or RegistrationStatus(), at)
    return permitted(state, at)


def failure(step: Step, *, code: str = "AnyCode", retryable: bool = True) -> StepFailed:
    return StepFailed(step=step, code=code, message="it failed", hint="fix it", retryable=retryable)


def awaiting_address() -> State:
    state = new()
    while due(state, T0) is not Step.ADDRESS:
        state = step_done(state, T0)
    return state


def never_registering() -> State:
    """A workspace whose boxes never register, once no timer is left."""
    state, at = awaiting(new()), T0
    while (wake := lifecycle.wake_at(state)) is not None:
        at = wake
        state = awaiting(lifecycle.apply(state, Tick(), at), at)
    return state
