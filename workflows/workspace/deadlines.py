"""What happens when time runs out: registration, canary, own requests. Standard library only.

Time is an argument; the workflow's timers only say when to ask.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace import backoff, conditions, self_requests
from workflows.workspace.admission import admit
from workflows.workspace.diagnosis import diagnose
from workflows.workspace.events import StepFailed
from workflows.workspace.failures import record_failure
from workflows.workspace.state import CanaryPolicy, CanaryState, Intent, State, Step


def canary_due(state: State) -> bool:
    """Whether the policy wants the agent to be asked now."""
    return (
        state.timings.canary is not CanaryPolicy.OFF
        and state.box.canary in (CanaryState.DUE, CanaryState.DUE_AGAIN)
        and conditions.is_reachable(state)
        and state.box.stale_since is None
    )


def register_deadline(state: State) -> datetime | None:
    """When the box must have registered and beaten; None if it has, or nothing waits for it."""
    box = state.box
    if state.provisioning is None or box.running_since is None:
        return None
    if conditions.is_reachable(state) and box.stale_since is None:
        return None
    return box.running_since + state.timings.register_deadline


def is_registration_overdue(state: State, at: datetime) -> bool:
    """Whether the box should have registered and beaten by now."""
    deadline = register_deadline(state)
    return deadline is not None and at >= deadline


def canary_deadline(state: State) -> datetime | None:
    """When the agent must have answered; None if nothing is asked."""
    if not canary_due(state) or state.box.heartbeat_at is None or state.box.running_since is None:
        return None
    if state.box.canary is CanaryState.DUE_AGAIN:
        return (
            None  # a question to an idle agent has no deadline: it is missed as often as it is not answered
        )
    return max(state.box.heartbeat_at, state.box.running_since) + state.timings.canary_deadline


def processing_deadline(state: State) -> datetime | None:
    """When a box that doesn't process becomes a reason for recreation; None if it isn't, or was already."""
    since = state.box.agent_unresponsive_since
    if since is None or state.box.replacement_requested or state.halted or state.intent is not Intent.RUN:
        return None
    # A provisioning whose box is there has no other deadline; one that is on its way has its own.
    if state.provisioning is not None and not conditions.is_reachable(state):
        return None
    return since + state.timings.not_processing


def idle_canary_at(state: State) -> datetime | None:
    """When the agent is asked again because it has been idle; None if it is not."""
    if (
        state.timings.canary is not CanaryPolicy.IDLE
        or state.provisioning is not None
        or state.online_since is None
    ):
        return None
    return state.box.next_canary_at if state.box.canary is CanaryState.ANSWERED else None


def apply_deadlines(state: State, at: datetime) -> State:
    """Apply every deadline that lies behind."""
    if state.frozen is not None and at >= state.frozen.until:
        state = replace(state, frozen=None)
    idle = idle_canary_at(state)
    if idle is not None and at >= idle and conditions.is_reachable(state):
        box = replace(
            state.box,
            canary=CanaryState.DUE_AGAIN,
            canary_round=state.box.canary_round + 1,
            canary_attempts=0,
        )
        state = replace(state, box=box)
    dead = processing_deadline(state)
    if dead is not None and at >= dead:
        state = replace(state, provisioning=None, box=replace(state.box, replacement_requested=True))
        return _request_recreate(state, at)
    canary = canary_deadline(state)
    if canary is not None and at >= canary:
        state = replace(
            state, box=replace(state.box, canary=CanaryState.MISSED), provisioning=None, retry=None
        )
    if is_registration_overdue(state, at):
        if state.inquires and state.box.registration is None:
            # News of the box may wait behind an outage of ours: a healthy box must not be recreated for it.
            return replace(state, box=replace(state.box, checking_registration=True))
        missed = _missed(state)
        state = replace(
            state,
            provisioning=None,
            errors=record_failure(state, missed, at),
            budget=backoff.record_failed_recreate(state, phase=missed.step, code=missed.code),
        )
        return _request_recreate(state, at)
    if state.retry_recreate_at is not None and at >= state.retry_recreate_at:
        state = replace(state, retry_recreate_at=None)
        well = conditions.is_reachable(state) and state.box.agent_unresponsive_since is None
        return state if well else _request_recreate(state, at)
    return backoff.reset_when_healthy(state, at)


def _missed(state: State) -> StepFailed:
    within = _format_duration(state.timings.register_deadline)
    if state.box.registration is not None and state.box.stale_since is None:
        why = diagnose(state.box.registration)
        return StepFailed(
            step=Step.AWAIT_REGISTRATION,
            code=why.code,
            message=f"generation {state.generation} was not online within {within}: {why.message}",
            hint=why.hint,
            retryable=True,
        )
    if state.box.registered_at is None:
        code, what = "not_registered", "did not register"
        hint = "See the box's own log (bootstrap secret, network path to the register API, user data)."
    elif state.box.stale_since is not None:
        code, what = "fell_silent", "registered and fell silent: it was not online"
        hint = "The runtime ended, or lost its way to the register API: see the agent's log on the box."
    else:
        code, what = "not_beating", "registered, but no authenticated beat was taken in"
        hint = "The runtime did not start, or does not use the token: see the agent's log on the box."
    return StepFailed(
        step=Step.AWAIT_REGISTRATION,
        code=code,
        message=f"the box of generation {state.generation} {what} within {within} of running",
        hint=hint,
        retryable=True,
    )


def _request_recreate(state: State, at: datetime) -> State:
    state, decided = admit(state, self_requests.recreate_request(state, at), at)
    return state if decided is None else self_requests.on_decided(state, decided, at)


def _format_duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds:g} s" if seconds < 60 else f"{seconds / 60:g} min"
