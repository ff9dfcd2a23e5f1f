"""Phase and conditions of a workspace, derived from its state. Standard library only."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from workflows.workspace import backoff
from workflows.workspace.diagnosis import CREDENTIAL_LOST, diagnose
from workflows.workspace.enums import (
    CanaryPolicy,
    CanaryState,
    ConditionStatus,
    ConditionType,
    Intent,
    Phase,
    Step,
)
from workflows.workspace.state import Condition, State

FENCE_UNCONFIRMED = "FenceUnconfirmed"

_REQUIRED_FOR_ONLINE = (
    ConditionType.INSTANCE_RUNNING,
    ConditionType.REGISTERED,
    ConditionType.HEARTBEAT_FRESH,
    ConditionType.PROCESSING,
)
"""In the order in which a box reaches them: the first that is not true is the reason."""

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def phase(state: State) -> Phase:
    """The phase of the workspace. `online` needs every required condition to be true; unknown is not true."""
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
    """Whether the box runs at its address, is registered, and has sent authenticated heartbeats."""
    box = state.box
    return box.running_since is not None and box.registered_at is not None and box.heartbeat_at is not None


def is_serving(state: State) -> bool:
    """Whether the workspace meets every requirement of `online` (invariant I9)."""
    box = state.box
    fresh = box.stale_since is None and box.credential_lost_at is None
    return is_reachable(state) and fresh and canary_satisfied(state) and box.agent_unresponsive_since is None


def canary_satisfied(state: State) -> bool:
    """Whether the first canary was answered, or the policy sends none."""
    answered = state.box.canary in (CanaryState.ANSWERED, CanaryState.DUE_AGAIN)
    return state.timings.canary is CanaryPolicy.OFF or answered


def _closing_phase(state: State) -> Phase:
    closed = state.closed and state.fence.confirmed
    if state.intent is Intent.STOP:
        return Phase.STOPPED if closed else Phase.STOPPING
    gone = state.address_removed and (state.volume_deleted or not state.has_volume)
    return Phase.DELETED if closed and gone else Phase.DELETING


def blocking_condition(state: State) -> Condition | None:
    """The condition that keeps the workspace from `online`; None if none does, or during a recreate.

    Only an unconfirmed termination is returned during a recreate too: it blocks the recreate.
    """
    by_type = {condition.type: condition for condition in state.conditions}
    running = by_type.get(ConditionType.INSTANCE_RUNNING)
    if running is not None and running.reason == FENCE_UNCONFIRMED:
        return running
    if phase(state) not in (Phase.DEGRADED, Phase.FAILED):
        return None
    required = (by_type.get(type_) for type_ in _REQUIRED_FOR_ONLINE)
    return next((it for it in required if it is not None and it.status is not TRUE), None)


def refresh(state: State, at: datetime) -> State:
    """The state with up-to-date conditions. A transition time changes only with the status."""
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
    if state.is_fence_unconfirmed(at):
        # Until EC2 has answered once, the instances are unknown.
        keys = ", ".join(it.key for it in state.fence.unconfirmed_instances) or "earlier instances"
        return UNKNOWN, FENCE_UNCONFIRMED, f"the termination of {keys} cannot be confirmed"
    if state.intent is not Intent.RUN:
        if state.fence.confirmed and state.closed:
            return FALSE, "Terminated", "all instances are confirmed terminated"
        return FALSE, "Terminating", "the instance is being terminated"
    if state.box.running_since is not None:
        return TRUE, "Running", f"EC2 reported {state.box.instance_id} running"
    if state.box.instance_id is not None:
        return UNKNOWN, "Launched", f"{state.box.instance_id} was launched and is not running yet"
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
        return FALSE, "DeadlineMissed", "the box did not register before its deadline"
    return FALSE, "NotRegistered", "the box has not registered yet"


def _heartbeat_fresh(state: State) -> tuple[ConditionStatus, str, str]:
    if state.box.heartbeat_at is None:
        return UNKNOWN, "NoHeartbeatYet", "no authenticated heartbeat has arrived yet"
    if state.box.stale_since is not None:
        return FALSE, "Stale", f"heartbeats are missing, noticed at {state.box.stale_since:%H:%M:%S} UTC"
    return TRUE, "Fresh", "heartbeats arrive with a valid token"


def _processing(state: State) -> tuple[ConditionStatus, str, str]:
    if state.box.canary is CanaryState.MISSED:
        return FALSE, "CanaryMissed", "the agent did not answer the canary; Onebox sends it again"
    if state.box.agent_unresponsive_since is not None:
        return FALSE, "NotProcessing", state.box.agent_unresponsive_reason
    if state.box.processed_at is not None:
        return TRUE, "Processing", "the agent is processing work"
    if state.box.canary is CanaryState.ANSWERED:
        return TRUE, "CanaryAnswered", "the agent answered the canary"
    return UNKNOWN, "NoEvidenceYet", "no evidence yet that the agent is processing work"


def _recreate_allowed(state: State, at: datetime) -> tuple[ConditionStatus, str, str]:
    backoff_until = backoff.backoff_until(backoff.reset_when_healthy(state, at))
    if state.intent is not Intent.RUN:
        return FALSE, "Intent", f"the workspace is {phase(state)}"
    if state.provisioning is not None:
        return FALSE, "InProgress", f"generation {state.generation} is in progress; requests join it"
    repeated = backoff.repeated_failure(state.budget)
    if state.exhausted and repeated is not None:
        return FALSE, "SameFailure", f"the last recreates failed with the same error ({repeated})"
    if state.exhausted or backoff.budget_resets_at(state.budget, at) is not None:
        return FALSE, "BudgetExhausted", "the budget of automatic recreates is exhausted"
    if state.frozen is not None and at < state.frozen.until:
        return FALSE, "FleetAtCapacity" if state.frozen.at_capacity else "FleetFrozen", state.frozen.reason
    if backoff_until is not None and at < backoff_until:
        return FALSE, "Backoff", f"automatic requests are deferred until {backoff_until:%H:%M:%S} UTC"
    return TRUE, "Allowed", "a request would be accepted"
