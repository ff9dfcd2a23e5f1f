"""What a workspace is, derived from the facts: its phase and its conditions. Standard library only.

Changes nothing: the same facts always read the same.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from workflows.workspace import backoff
from workflows.workspace.diagnosis import CREDENTIAL_LOST, diagnose
from workflows.workspace.phases.fencing import is_unconfirmed
from workflows.workspace.state import (
    CanaryPolicy,
    CanaryState,
    Condition,
    ConditionStatus,
    ConditionType,
    Intent,
    Phase,
    State,
    Step,
)

UNCONFIRMED = "FenceUnconfirmed"

_PROOFS = (
    ConditionType.INSTANCE_RUNNING,
    ConditionType.REGISTERED,
    ConditionType.HEARTBEAT_FRESH,
    ConditionType.PROCESSING,
)
"""What `online` needs, in the order in which a box gets there: the first that is missing is the reason."""

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def phase(state: State) -> Phase:
    """The one word for the workspace. `online` needs every proof; unknown is not online."""
    if state.intent is not Intent.RUN:
        return _closing_phase(state)
    if state.provisioning is not None:
        if state.box.running_since is not None:
            return Phase.AWAITING_REGISTRATION
        return Phase.PROVISIONING if state.provisioning.first_launch else Phase.RECREATING
    if not state.enrolled:
        return Phase.PROVISIONING
    if is_serving(state):
        return Phase.ONLINE
    if state.halted or not is_reachable(state):
        return Phase.FAILED
    return Phase.DEGRADED


def is_reachable(state: State) -> bool:
    """Whether the box runs at its address, is registered, and its beats were taken in."""
    box = state.box
    return box.running_since is not None and box.registered_at is not None and box.heartbeat_at is not None


def is_serving(state: State) -> bool:
    """Whether everything is there that `online` stands for (invariant I9)."""
    box = state.box
    beats = box.stale_since is None and box.credential_lost_at is None
    return is_reachable(state) and beats and canary_satisfied(state) and box.agent_unresponsive_since is None


def canary_satisfied(state: State) -> bool:
    """Whether the policy's question was answered, or is not asked."""
    answered = state.box.canary in (CanaryState.ANSWERED, CanaryState.DUE_AGAIN)
    return state.timings.canary is CanaryPolicy.OFF or answered


def _closing_phase(state: State) -> Phase:
    closed = state.closed and state.fence.confirmed
    if state.intent is Intent.STOP:
        return Phase.STOPPED if closed else Phase.STOPPING
    gone = state.address_removed and (state.volume_deleted or not state.has_volume)
    return Phase.DELETED if closed and gone else Phase.DELETING


def blocking_condition(state: State) -> Condition | None:
    """The condition that keeps the workspace from `online`, as far as one does and nothing is on its way.

    A termination that cannot be confirmed is trouble on the way, too: nothing goes on before it.
    """
    by_type = {condition.type: condition for condition in state.conditions}
    running = by_type.get(ConditionType.INSTANCE_RUNNING)
    if running is not None and running.reason == UNCONFIRMED:
        return running
    if phase(state) not in (Phase.DEGRADED, Phase.FAILED):
        return None
    keeping = (by_type.get(type_) for type_ in _PROOFS)
    return next((it for it in keeping if it is not None and it.status is not TRUE), None)


def refresh(state: State, at: datetime) -> State:
    """Bring the conditions up to date; a transition time changes only with the status."""
    before = {condition.type: condition for condition in state.conditions}
    after = []
    for type_, status, reason, message in _observe(state, at):
        old = before.get(type_)
        since = old.last_transition_at if old is not None and old.status is status else at
        after.append(
            Condition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                generation=state.generation,
                last_transition_at=since,
            )
        )
    return replace(state, conditions=tuple(after))


def _observe(state: State, at: datetime) -> Iterator[tuple[ConditionType, ConditionStatus, str, str]]:
    yield (ConditionType.INSTANCE_RUNNING, *_instance_running(state, at))
    yield (ConditionType.ADDRESS_IN_SYNC, *_address_in_sync(state))
    yield (ConditionType.REGISTERED, *_registered(state))
    yield (ConditionType.HEARTBEAT_FRESH, *_heartbeat_fresh(state))
    yield (ConditionType.PROCESSING, *_processing(state))
    yield (ConditionType.RECREATE_ALLOWED, *_recreate_allowed(state, at))


def _instance_running(state: State, at: datetime) -> tuple[ConditionStatus, str, str]:
    if state.intent is not Intent.RUN:
        if state.fence.confirmed and state.closed:
            return FALSE, "Terminated", "every instance is confirmed to be terminated"
        return FALSE, "Terminating", "the instance is being terminated"
    if is_unconfirmed(state.fence, at, after=state.timings.fence_unconfirmed):
        # Where no look at EC2 has succeeded yet, nobody knows which they are.
        names = ", ".join(instance.key for instance in state.fence.unconfirmed_instances) or "what ran before"
        return UNKNOWN, UNCONFIRMED, f"the termination of {names} cannot be confirmed"
    if state.box.running_since is not None:
        return TRUE, "Running", f"{state.box.instance_id} was seen running"
    if state.box.instance_id is not None:
        return UNKNOWN, "Launched", f"{state.box.instance_id} was launched and is not seen running yet"
    return FALSE, "NotLaunched", f"generation {state.generation} has no instance yet"


def _address_in_sync(state: State) -> tuple[ConditionStatus, str, str]:
    if state.intent is Intent.RUN and state.box.running_since is not None:
        return TRUE, "Written", f"{state.box.dns_name} points to {state.box.private_ip}"
    return FALSE, "NotWritten", "the DNS name does not point to this generation's instance"


def _registered(state: State) -> tuple[ConditionStatus, str, str]:
    if state.box.credential_lost_at is not None:
        return FALSE, CREDENTIAL_LOST.reason, CREDENTIAL_LOST.message
    if state.box.registered_at is not None:
        return TRUE, "Registered", "the box has registered"
    if state.box.registration is not None:
        why = diagnose(state.box.registration)
        return FALSE, why.reason, why.message
    if any(error.phase is Step.AWAIT_REGISTRATION for error in state.errors):
        return FALSE, "DeadlineMissed", "the box did not register in time"
    return FALSE, "NotRegistered", "the box has not registered yet"


def _heartbeat_fresh(state: State) -> tuple[ConditionStatus, str, str]:
    if state.box.heartbeat_at is None:
        return UNKNOWN, "NoBeatYet", "no authenticated beat was taken in yet"
    if state.box.stale_since is not None:
        return FALSE, "Silent", f"no beat since {state.box.stale_since:%H:%M:%S} UTC"
    return TRUE, "Beating", "beats come with a live token"


def _processing(state: State) -> tuple[ConditionStatus, str, str]:
    if state.box.agent_unresponsive_since is not None:
        return FALSE, "NotProcessing", state.box.agent_unresponsive_reason
    if state.box.processed_at is not None:
        return TRUE, "Processing", "the agent processes what it is given"
    if state.box.canary is CanaryState.ANSWERED:
        return TRUE, "CanaryAnswered", "the agent answered the control plane's question"
    if state.box.canary is CanaryState.MISSED:
        return FALSE, "CanaryMissed", "the agent did not answer the control plane's question"
    return UNKNOWN, "NotAsked", "nothing has shown yet that the agent processes"


def _recreate_allowed(state: State, at: datetime) -> tuple[ConditionStatus, str, str]:
    spaced = backoff.backoff_until(backoff.reset_when_healthy(state, at))
    if state.intent is not Intent.RUN:
        return FALSE, "Intent", f"the workspace is meant to {state.intent}"
    if state.provisioning is not None:
        return FALSE, "InFlight", f"generation {state.generation} is on its way; requests join it"
    futile = backoff.repeated_failure(state.budget)
    if state.budget.exhausted and futile is not None:
        return FALSE, "FailedAlike", f"recreates failed alike ({futile}); request_start tries again"
    if state.budget.exhausted or backoff.budget_resets_at(state.budget, at) is not None:
        return FALSE, "BudgetSpent", "the budget of automatic recreates is spent; request_start passes it"
    if state.frozen is not None and at < state.frozen.until:
        return FALSE, "FleetBusy" if state.frozen.at_capacity else "FleetFrozen", state.frozen.reason
    if spaced is not None and at < spaced:
        return FALSE, "Spacing", f"automatic requests wait until {spaced:%H:%M:%S} UTC"
    return TRUE, "Allowed", "a request would be accepted"
