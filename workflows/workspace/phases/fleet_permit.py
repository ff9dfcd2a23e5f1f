"""Automatic requests that wait for the fleet's permit, and what becomes of them. Standard library only.

Whether the fleet allows a recreate is judged in `fleet`; here it is an event like others.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace import conditions, self_requests
from workflows.workspace.admission import admit, expire, reject
from workflows.workspace.events import FleetPermit, StepFailed
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import FleetFreeze, Intent, State

PERMIT_RETRY_AFTER = timedelta(seconds=60)
"""Where nobody could say: what cannot be read now may be readable in a minute."""


def accepted_automatically(before: State, after: State) -> bool:
    """Whether an automatic request was accepted between the two."""
    added = after.unrecorded - before.unrecorded
    new = after.requests[-added:] if added > 0 else ()
    recreate = (RequestKind.RECREATE, RequestKind.START)
    return any(it.outcome is OutcomeKind.ACCEPTED and not it.human and it.kind in recreate for it in new)


def apply_permit(state: State, permit: FleetPermit, at: datetime) -> State:
    """Decide what waited; a refusal holds for those that come until it is worth asking again."""
    waiting, state = state.pending, replace(state, pending=())
    for request_input in waiting:
        state = _decided(state, request_input, at, permit)
    if permit.granted or not waiting or state.frozen is not None:
        return state
    frozen = FleetFreeze(until=at + permit.retry_after, reason=permit.reason, at_capacity=not permit.frozen)
    return replace(state, frozen=frozen)


def permit_unavailable(failure: StepFailed) -> FleetPermit:
    """What it means that the fleet could not be asked: nothing automatic begins in the dark."""
    return FleetPermit(
        granted=False,
        frozen=True,
        reason=f"its state cannot be read ({failure.code}): {failure.message}",
        retry_after=PERMIT_RETRY_AFTER,
    )


def decide_pending(state: State, at: datetime) -> State:
    """Decide those that need no permit any more: others came first, or the cause is gone."""
    waiting, state = state.pending, replace(state, pending=())
    for request_input in waiting:
        state = _decided(state, request_input, at, None)
    return state


def _decided(state: State, request_input: RequestInput, at: datetime, permit: FleetPermit | None) -> State:
    decided: Request | None
    if state.intent is not Intent.RUN:
        state, _ = reject(state, request_input, f"the workspace is meant to {state.intent}, by now", at=at)
        return state
    own = request_input.requested_by == self_requests.REQUESTER
    if own and conditions.is_serving(state):
        state, _ = expire(state, request_input, f"generation {state.generation} came online meanwhile", at=at)
        return state
    state, decided = admit(state, request_input, at, permit=permit)
    return self_requests.on_decided(state, decided, at) if own and decided is not None else state
