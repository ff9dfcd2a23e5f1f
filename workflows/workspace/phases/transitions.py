"""What the result of a step changes. Standard library only.

Each function takes one result in; which step comes next is decided in `lifecycle`.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace import backoff, conditions
from workflows.workspace.admission import merge_recorded, start_provisioning
from workflows.workspace.events import (
    AddressResult,
    CanaryResult,
    Enrolled,
    FenceObserved,
    GenerationOpened,
    LaunchResult,
    OrphansTerminated,
    StepFailed,
)
from workflows.workspace.failures import clear_failure, record_failure
from workflows.workspace.phases import fencing
from workflows.workspace.state import (
    Box,
    CanaryPolicy,
    CanaryState,
    Fence,
    Intent,
    Provisioning,
    RegistrationStatus,
    Retry,
    State,
    Step,
)

INITIAL_RETRY_INTERVAL = timedelta(seconds=5)
MAX_RETRY_INTERVAL = timedelta(seconds=60)
"""Between tries that the record shows; below them the activities' own retry policies work."""

MAX_IDLE_CANARY_MISSES = 2
IDLE_CANARY_RETRY = timedelta(seconds=60)
"""After the first miss, before the second question decides."""

RELOAD_AFTER = timedelta(seconds=1)

MAX_ORPHAN_INSTANCES = 50
"""More are told of again: the sweep does so as long as they are there."""

SLOW_RETRY = timedelta(seconds=60)
"""For what must go on although trying again is unlikely to help, such as a termination."""

CAPACITY_RETRY_INTERVAL = timedelta(seconds=60)
"""After all zones and types refused; capacity comes back in minutes, not seconds."""


def succeeded(state: State, step: Step) -> State:
    """Clear what stood on the record for this step."""
    return replace(state, retry=None, errors=clear_failure(state.errors, step))


def _retried(state: State, step: Step, at: datetime, *, after: timedelta | None = None) -> State:
    failures = state.retry.failures + 1 if state.retry is not None and state.retry.step is step else 1
    pause = after or min(INITIAL_RETRY_INTERVAL * 2 ** min(failures - 1, 10), MAX_RETRY_INTERVAL)
    return replace(state, retry=Retry(step=step, failures=failures, not_before=at + pause))


def reload_record(state: State, at: datetime) -> State:
    """The record knows more: read it, after a moment."""
    return _retried(replace(state, enrolled=False), Step.ENROLL, at, after=RELOAD_AFTER)


def enrolled(state: State, event: Enrolled, at: datetime) -> State:
    """Start from the record: a new workspace takes off, a known one resumes its generation."""
    known = replace(
        merge_recorded(state, event.decided),
        enrolled=True,
        heeds_resets=event.heeds_resets,
        timings=event.timings,
        generation=event.generation,
        opened=event.generation,
        revision=max(state.revision, event.revision),
        budget=replace(
            state.budget,
            automatic=event.automatic,
            accepted=event.accepted,
            streak=max(state.budget.streak, len(event.automatic)),
        ),
        fence=Fence(),
        has_volume=event.has_volume,
        snapshots=event.snapshots,
        retry=None,
        errors=clear_failure(state.errors, Step.ENROLL),
    )
    if event.deleted:
        return replace(
            known,
            intent=Intent.DELETE,
            closed=True,
            address_removed=True,
            volume_deleted=True,
            fence=Fence(confirmed=True),
        )
    if state.intent is not Intent.RUN:
        return replace(known, closed=False)  # accepted here, and not in the record yet
    if event.intent is not Intent.RUN:
        return replace(known, intent=event.intent, closed=not event.current, provisioning=None)
    if not event.current:
        return start_provisioning(known, at)
    if state.provisioning is not None and state.generation > event.generation:
        return replace(known, generation=state.generation)  # decided on, and not opened yet
    return replace(
        known,
        intent=Intent.RUN,
        provisioning=Provisioning(
            generation=event.generation,
            since=at,
            requesters=state.provisioning.requesters if state.provisioning else (),
        ),
        online_since=None,
        halted=False,
        box=Box(
            attempt=event.attempt,
            registered_at=event.registered_at,
            heartbeat_at=event.heartbeat_at,
            credential_lost_at=event.credential_lost_at,
            agent_unresponsive_since=event.agent_unresponsive_since,
            agent_unresponsive_reason=event.agent_unresponsive_reason,
        ),
    )


def fenced(state: State, event: FenceObserved, at: datetime) -> State:
    """One more look at the boxes before; only proof lets the launch go on."""
    fence = fencing.update_fence(state.fence, event, at)
    state = replace(state, fence=fence)
    if fence.confirmed:
        return succeeded(state, Step.FENCE)
    if fencing.is_unconfirmed(fence, at, after=state.timings.fence_unconfirmed):
        names = ", ".join(instance.key for instance in fence.unconfirmed_instances)
        failure = StepFailed(
            step=Step.FENCE,
            code="fence_unconfirmed",
            message=f"the termination of {names} is not confirmed; the next box waits for it",
            hint="Look at the instance in EC2. If its host is lost, a human may send declare_dead.",
            retryable=True,
        )
        state = replace(state, errors=record_failure(state, failure, at))
    return _retried(state, Step.FENCE, at, after=fencing.POLL_INTERVAL)


def launched(state: State, event: LaunchResult, at: datetime) -> State:
    """An instance, a refusal for lack of capacity, or strangers that have to go first."""
    if event.orphan_instances:
        fence = Fence(since=at, snapshot_over=state.fence.snapshot_over)
        return _retried(replace(state, fence=fence), Step.FENCE, at, after=timedelta(seconds=2))
    if event.capacity_code is None:
        box = replace(state.box, instance_id=event.instance_id, private_ip=event.private_ip)
        return succeeded(replace(state, box=box), Step.LAUNCH)
    failure = StepFailed(
        step=Step.LAUNCH,
        code=event.capacity_code,
        message=event.capacity_message,
        hint="The next zone or instance type of the spec is tried by itself.",
        retryable=True,
    )
    attempt = state.box.attempt
    state = replace(
        state,
        errors=record_failure(state, failure, at),
        box=replace(state.box, attempt=attempt + 1),
        retry=None,
    )
    if attempt % event.offerings == 0:
        return _retried(state, Step.LAUNCH, at, after=CAPACITY_RETRY_INTERVAL)
    return state


def addressed(state: State, event: AddressResult, at: datetime) -> State:
    """The box runs at its address, or ended before it did."""
    if not event.gone:
        box = replace(state.box, private_ip=event.private_ip, dns_name=event.dns_name, running_since=at)
        return succeeded(replace(state, box=box), Step.ADDRESS)
    return instance_ended(state, Step.ADDRESS, event.detail, at)


def instance_ended(state: State, step: Step, detail: str, at: datetime) -> State:
    """The instance ended before it ran: the lifecycle asks for the next one."""
    failure = StepFailed(
        step=step,
        code="instance_ended",
        message=f"{state.box.instance_id} ended before it ran: {detail}",
        hint="See the instance's state reason in EC2; often a volume, key or image that cannot be used.",
        retryable=True,
    )
    # Another box needs another generation: two boxes of one could not be fenced from each other.
    return replace(
        state,
        errors=record_failure(state, failure, at),
        budget=backoff.record_failed_recreate(state, phase=failure.step, code=failure.code),
        provisioning=None,
        retry=None,
        retry_recreate_at=at,
    )


def _halted(state: State) -> State:
    return replace(state, halted=True, provisioning=None, retry=None)


def failed(state: State, event: StepFailed, at: datetime) -> State:
    """Put the failure on the record, and try again where that can help."""
    state = replace(state, errors=record_failure(state, event, at))
    if event.step is Step.FENCE:
        state = replace(state, fence=replace(state.fence, since=state.fence.since or at))
    if event.step is Step.SNAPSHOT:
        # The volume survives: a snapshot that can't be had holds nothing up.
        return replace(state, retry=None, fence=replace(state.fence, snapshot_over=True))
    if event.retryable:
        return _retried(state, event.step, at)
    if event.step in (Step.OPEN, Step.DETACH, Step.LAUNCH, Step.ATTACH, Step.ADDRESS):
        return _halted(state)
    return _retried(state, event.step, at, after=SLOW_RETRY)


def canary_completed(state: State, event: CanaryResult, at: datetime) -> State:
    """The agent's answer, or one more miss."""
    if event.answered:
        box = replace(state.box, canary=CanaryState.ANSWERED)
        return agent_processing(succeeded(replace(state, box=box), Step.CANARY), at)
    if state.box.canary is CanaryState.DUE_AGAIN:
        return _missed_while_idle(state, event, at)
    if state.box.canary is not CanaryState.DUE:
        return state
    failure = StepFailed(
        step=Step.CANARY,
        code=event.code,
        message=event.detail,
        hint="The box beats, but its agent does not answer: see the agent's log, or recreate the box.",
        retryable=True,
    )
    box = replace(state.box, canary_attempts=state.box.canary_attempts + 1)
    state = replace(state, errors=record_failure(state, failure, at), box=box)
    return _retried(state, Step.CANARY, at)


def heartbeat_received(box: Box, last_liveness_at: datetime, at: datetime) -> Box:
    """The box beats with a live token: whatever was wrong with its beats before is over."""
    return replace(
        box,
        heartbeat_at=box.heartbeat_at or at,
        stale_since=None,
        credential_lost_at=None,
        last_liveness_at=last_liveness_at,
    )


def registration_checked(state: State, registration: RegistrationStatus, at: datetime) -> State:
    """What the record says of the box whose deadline has passed: perhaps that it is well."""
    box = replace(
        state.box,
        checking_registration=False,
        registration=registration,
        registered_at=state.box.registered_at or registration.registered_at,
    )
    if registration.heartbeat_at is not None and (
        box.last_liveness_at is None or registration.heartbeat_at > box.last_liveness_at
    ):
        box = heartbeat_received(box, registration.heartbeat_at, at)
    return succeeded(replace(state, box=box), Step.CHECK_REGISTRATION)


def _missed_while_idle(state: State, event: CanaryResult, at: datetime) -> State:
    """One miss may be a moment's trouble; two in a row are a dead agent."""
    misses = state.box.canary_misses + 1
    box = replace(
        state.box,
        canary=CanaryState.ANSWERED,  # it was, once: the next question comes soon
        next_canary_at=at + IDLE_CANARY_RETRY,
        canary_misses=misses,
    )
    state = replace(state, box=box, retry=None)
    if misses < MAX_IDLE_CANARY_MISSES:
        return state
    return agent_unresponsive(state, f"{misses} questions in a row were not answered: {event.detail}", at)


def agent_unresponsive(state: State, why: str, at: datetime) -> State:
    """The box is online with a dead brain: degraded, with the reason."""
    if state.box.agent_unresponsive_since is not None:
        return state
    failure = StepFailed(
        step=Step.PROCESS,
        code="not_processing",
        message=f"the box of generation {state.generation} beats and does not process: {why}",
        hint="See the agent's log on the box. It is recreated by itself if it does not come back; "
        "delegations that it did not acknowledge go to the next box.",
        retryable=True,
    )
    box = replace(
        state.box, agent_unresponsive_since=at, agent_unresponsive_reason=why, replacement_requested=False
    )
    return replace(state, box=box, errors=record_failure(state, failure, at))


def agent_processing(state: State, at: datetime) -> State:
    """The agent was seen to process something."""
    box = replace(
        state.box,
        processed_at=at,
        agent_unresponsive_since=None,
        agent_unresponsive_reason="",
        replacement_requested=False,
        next_canary_at=at + state.timings.idle if state.timings.canary is CanaryPolicy.IDLE else None,
        canary_misses=0,
    )
    # What was to be asked for again was asked for because it did not process, if its box is there.
    retry_recreate_at = None if conditions.is_reachable(state) else state.retry_recreate_at
    return replace(
        state, box=box, retry_recreate_at=retry_recreate_at, errors=clear_failure(state.errors, Step.PROCESS)
    )


def orphan_found(state: State, instance_id: str) -> State:
    """Keep in mind what nobody claims, until there is time to end it; who is ours is judged again then."""
    known = (*state.orphan_instances, state.box.instance_id, "")
    if instance_id in known or len(state.orphan_instances) >= MAX_ORPHAN_INSTANCES:
        return state
    return replace(state, orphan_instances=(*state.orphan_instances, instance_id))


def orphans_terminated(state: State, event: OrphansTerminated) -> State:
    """They were looked at; the sweep tells again of what is still there."""
    left = tuple(stray for stray in state.orphan_instances if stray not in event.instances)
    return succeeded(replace(state, orphan_instances=left), Step.EVICT)


def unrecorded_instance_found(state: State, at: datetime) -> State:
    """The launch whose answer was lost has an instance: launch again, which adopts it."""
    if state.box.instance_id is not None or state.opened < state.generation:
        return state
    if state.provisioning is None:
        state = replace(state, provisioning=Provisioning(generation=state.generation, since=at), halted=False)
    again = state.retry is not None and state.retry.step is Step.LAUNCH
    return replace(state, retry=None) if again else state


def opened(state: State, event: GenerationOpened) -> State:
    """The number comes from the database, whatever this workflow expected."""
    provisioning = replace(state.provisioning, generation=event.generation) if state.provisioning else None
    state = replace(
        state,
        generation=event.generation,
        opened=event.generation,
        timings=event.timings,
        has_volume=event.has_volume,
        snapshots=event.snapshots,
        provisioning=provisioning,
    )
    return succeeded(state, Step.OPEN)
