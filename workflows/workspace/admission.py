"""The admission table: the outcome of each request. Standard library only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from workflows.fleet.contract import FleetPermit
from workflows.workspace import backoff
from workflows.workspace.conditions import is_reachable
from workflows.workspace.enums import Intent
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import Box, Fence, Provisioning, Settled, State

KEPT_OUTCOMES = 200
"""Decided requests kept in the state, so that a repeated request ID gets the same outcome. An incident has a
few dozen. With the longest reasons they are 0.8 MB of the 2 MB that a continue-as-new may carry."""

MAX_DETAIL_CHARS = 400

MAX_REQUESTERS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    outcome: OutcomeKind
    detail: str
    retry_at: datetime | None = None


def admit(
    state: State, request_input: RequestInput, at: datetime, *, permit: FleetPermit | None = None
) -> tuple[State, Request | None]:
    """Decide a request by the first row that applies. A repeated request ID gets the earlier outcome.

    An automatic request that passes every rule needs a fleet permit: the outcome is None, and the request
    pending, until `permit` is given.
    """
    for earlier in state.requests:
        if earlier.request_id == request_input.request_id:
            if earlier.kind is request_input.kind:
                return state, earlier
            return _reject_reused_id(state, request_input, earlier, at)
    if any(waiting.request_id == request_input.request_id for waiting in state.pending):
        return state, None
    state = backoff.reset_when_healthy(state, at)
    if forces_replacement(state, request_input):
        state = state.now_waiting(Settled())
    decision = _decide(state, request_input, at)
    if decision.outcome is OutcomeKind.ACCEPTED and _needs_fleet_permit(state, request_input):
        if permit is None:
            return replace(state, pending=(*state.pending, request_input)), None
        if not permit.granted:
            decision = _Decision(
                outcome=OutcomeKind.DEFERRED,
                detail=_fleet_refusal(permit.reason, frozen=permit.frozen),
                retry_at=at + permit.retry_after,
            )
    if decision.outcome is OutcomeKind.ACCEPTED:
        state = _apply_accepted(state, request_input, at)
    elif decision.outcome is OutcomeKind.JOINED and state.provisioning is not None:
        requesters = (*state.provisioning.requesters, request_input.requested_by or "unnamed")
        joined = replace(state.provisioning, requesters=requesters[-MAX_REQUESTERS:])
        state = replace(state, waiting=joined)
    return _recorded(state, request_input, decision, at)


def merge_recorded(state: State, decided: Sequence[Request]) -> State:
    """Merge the decisions in PostgreSQL. Decisions that PostgreSQL does not have yet stay at the end."""
    known = {request.request_id for request in state.requests}
    found = [request for request in decided if request.request_id not in known]
    if not found:
        return state
    recorded = len(state.requests) - state.unrecorded
    earlier = sorted((*state.requests[:recorded], *found), key=lambda request: request.at)
    kept = (*earlier, *state.requests[recorded:])[-max(KEPT_OUTCOMES, state.unrecorded) :]
    return replace(state, requests=kept)


def reject(state: State, request_input: RequestInput, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a request that cannot be decided as rejected, so that its sender can see why."""
    return _recorded(state, request_input, _Decision(outcome=OutcomeKind.REJECTED, detail=detail), at)


def expire(state: State, request_input: RequestInput, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a pending request as stale, because its cause is gone."""
    return _recorded(state, request_input, _Decision(outcome=OutcomeKind.STALE, detail=detail), at)


def forces_replacement(state: State, request_input: RequestInput) -> bool:
    """Whether an operator forces the replacement of a generation in progress that is launched or refused."""
    return (
        request_input.kind is RequestKind.RECREATE
        and request_input.forced
        and state.provisioning is not None
        and request_input.observed_generation == state.provisioning.generation
        and (state.box.instance_id is not None or state.refused)
    )


def _reject_reused_id(
    state: State, request_input: RequestInput, earlier: Request, at: datetime
) -> tuple[State, Request]:
    """Reject a request whose ID is that of a request of another kind, under an ID of its own."""
    own_id = f"{request_input.request_id} ({request_input.kind})"
    for known in state.requests:
        if known.request_id == own_id:
            return state, known
    detail = f"request ID {earlier.request_id} is the ID of a {earlier.kind} request ({earlier.outcome})"
    return reject(state, replace(request_input, request_id=own_id), detail, at=at)


def _needs_fleet_permit(state: State, request_input: RequestInput) -> bool:
    """Whether an automatic request would recreate a box. Starting a stopped workspace needs no permit."""
    recreates = request_input.kind is RequestKind.RECREATE or (
        request_input.kind is RequestKind.START and state.intent is Intent.RUN
    )
    return request_input.automatic and recreates


def _fleet_refusal(reason: str, *, frozen: bool) -> str:
    return f"the fleet is frozen: {reason}" if frozen else f"the fleet is busy: {reason}"


def _decide(state: State, request_input: RequestInput, at: datetime) -> _Decision:
    if state.intent is Intent.DELETE:
        if request_input.kind is RequestKind.DELETE:
            return _Decision(outcome=OutcomeKind.JOINED, detail="the workspace is being deleted already")
        return _Decision(outcome=OutcomeKind.REJECTED, detail="the workspace is deleted or being deleted")
    match request_input.kind:
        case RequestKind.RECREATE:
            return _decide_recreate(state, request_input, at)
        case RequestKind.STOP:
            if state.intent is Intent.STOP:
                return _Decision(outcome=OutcomeKind.JOINED, detail="the workspace is stopped, or stopping")
            return _Decision(outcome=OutcomeKind.ACCEPTED, detail="stopping")
        case RequestKind.START:
            return _decide_start(state, request_input, at)
        case RequestKind.DELETE:
            return _Decision(outcome=OutcomeKind.ACCEPTED, detail="deleting")
        case RequestKind.DECLARE_DEAD:
            return _decide_declare_dead(state, request_input, at)
        case RequestKind.UNKNOWN:
            return _Decision(outcome=OutcomeKind.REJECTED, detail="no such request")
        case _ as never:
            assert_never(never)


def _decide_recreate(state: State, request_input: RequestInput, at: datetime) -> _Decision:
    now, seen = state.generation, request_input.observed_generation
    if state.provisioning is not None and seen in (None, now, now - 1):
        return _Decision(outcome=OutcomeKind.JOINED, detail=f"generation {now} is in progress")
    if seen is not None and seen < now:
        return _Decision(
            outcome=OutcomeKind.STALE, detail=f"generation {seen} is gone; generation {now} is current"
        )
    if seen is None and _in_grace_period(state, at):
        return _Decision(
            outcome=OutcomeKind.STALE,
            detail=f"generation {now} has just come online; name it in observed_generation to replace it",
        )
    if seen is not None and seen > now:
        return _Decision(
            outcome=OutcomeKind.REJECTED, detail=f"generation {seen} does not exist; {now} is current"
        )
    if state.intent is Intent.STOP:
        return _Decision(outcome=OutcomeKind.REJECTED, detail="stopped by intent; request_start starts it")
    if not request_input.forced and (deferral := _deferral(state, request_input, at)):
        return deferral
    return _Decision(outcome=OutcomeKind.ACCEPTED, detail=f"generation {now + 1} replaces {now}")


def _in_grace_period(state: State, at: datetime) -> bool:
    # The first generation has no predecessor that a late request could be about.
    return (
        state.generation > 1
        and state.online_since is not None
        and at - state.online_since < state.timings.recreate_grace
    )


def _deferral(state: State, request_input: RequestInput, at: datetime) -> _Decision | None:
    resets_at = backoff.budget_resets_at(state.budget, at)
    repeated = backoff.repeated_failure(state.budget)
    if repeated is not None:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail=f"{backoff.SAME_FAILURE_LIMIT} recreates in a row failed with the same error "
            f"({repeated}); request_start, or an admin's force, retries",
        )
    if state.exhausted or resets_at is not None:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail="the recreate budget is exhausted; request_start, or an admin's force, bypasses it",
            retry_at=None if state.exhausted else resets_at,
        )
    if not request_input.automatic:
        return None
    if state.frozen is not None and at < state.frozen.until:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail=_fleet_refusal(state.frozen.reason, frozen=not state.frozen.at_capacity),
            retry_at=state.frozen.until,
        )
    backoff_until = backoff.backoff_until(state)
    if backoff_until is not None and at < backoff_until:
        return _Decision(
            outcome=OutcomeKind.DEFERRED, detail="too soon after the last recreate", retry_at=backoff_until
        )
    return None


def _decide_start(state: State, request_input: RequestInput, at: datetime) -> _Decision:
    if state.intent is Intent.RUN and state.provisioning is not None:
        return _Decision(outcome=OutcomeKind.JOINED, detail=f"generation {state.generation} is in progress")
    if state.intent is Intent.RUN and is_reachable(state) and not state.halted:
        return _Decision(
            outcome=OutcomeKind.JOINED, detail="the workspace runs; request_recreate replaces its box"
        )
    if (
        state.intent is Intent.RUN
        and request_input.automatic
        and (deferral := _deferral(state, request_input, at))
    ):
        return deferral
    return _Decision(outcome=OutcomeKind.ACCEPTED, detail=f"starting generation {state.generation + 1}")


def _decide_declare_dead(state: State, request_input: RequestInput, at: datetime) -> _Decision:
    if request_input.automatic:
        return _Decision(
            outcome=OutcomeKind.REJECTED,
            detail="only an operator (requested_by admin…) may declare a box dead",
        )
    # Until EC2 has answered once, the workflow does not know the instances, and the operator does.
    keys = {it.key for it in state.fence.unconfirmed_instances}
    relevant = not keys or request_input.instance_id in keys
    if not state.is_fence_unconfirmed(at) or not relevant:
        return _Decision(
            outcome=OutcomeKind.REJECTED,
            detail=f"this workspace does not wait for the termination of {request_input.instance_id}",
        )
    return _Decision(
        outcome=OutcomeKind.ACCEPTED, detail=f"{request_input.instance_id} is considered terminated"
    )


def _apply_accepted(state: State, request_input: RequestInput, at: datetime) -> State:
    match request_input.kind:
        case RequestKind.RECREATE:
            state = replace(
                state, budget=backoff.record_recreate(state.budget, at, automatic=request_input.automatic)
            )
            return start_provisioning(state, at, requested_by=request_input.requested_by)
        case RequestKind.START:
            if state.intent is Intent.RUN and request_input.automatic:
                budget = backoff.record_recreate(state.budget, at, automatic=True)
            else:
                budget = replace(state.budget, streak=0, failures=())
            state = replace(state, budget=budget)
            return start_provisioning(state, at, requested_by=request_input.requested_by)
        case RequestKind.STOP | RequestKind.DELETE:
            return replace(
                state.now_waiting(Settled()),
                intent=Intent.STOP if request_input.kind is RequestKind.STOP else Intent.DELETE,
                closed=False,
                fence=Fence(),
                online_since=None,
            )
        case RequestKind.DECLARE_DEAD:
            dead = (*state.fence.declared_dead, request_input.instance_id or "")
            fence = replace(state.fence, declared_dead=dead)
            return replace(state, fence=fence, retry=None)
        case RequestKind.UNKNOWN:
            return state
        case _ as never:
            assert_never(never)


def start_provisioning(state: State, at: datetime, *, requested_by: str = "") -> State:
    """Start the next generation: everything known about the previous box is dropped."""
    generation = state.generation + 1
    provisioning = Provisioning(
        generation=generation,
        since=at,
        requesters=(requested_by,) if requested_by else (),
        first_launch=state.generation == 0 or state.intent is Intent.STOP,
    )
    return replace(
        state.now_waiting(provisioning),
        intent=Intent.RUN,
        generation=generation,
        closed=False,
        fence=Fence(),
        box=Box(),
        superseded_caller=None,  # the fence terminates the boxes of all earlier generations
        online_since=None,
    )


def _recorded(
    state: State, request_input: RequestInput, decision: _Decision, at: datetime
) -> tuple[State, Request]:
    request = Request(
        request_id=request_input.request_id,
        kind=request_input.kind,
        requested_by=request_input.requested_by,
        reason=request_input.reason,
        observed_generation=request_input.observed_generation,
        force=request_input.force,
        at=at,
        outcome=decision.outcome,
        generation=state.generation,
        detail=decision.detail[:MAX_DETAIL_CHARS],
        retry_at=decision.retry_at,
    )
    unrecorded = state.unrecorded + 1
    kept = (*state.requests, request)[-max(KEPT_OUTCOMES, unrecorded) :]
    return replace(state, requests=kept, unrecorded=unrecorded), request
