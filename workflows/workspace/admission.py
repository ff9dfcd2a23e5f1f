"""What becomes of a request: the admission table. Standard library only.

Decides and records the outcome; what an accepted request sets in motion is up to `lifecycle`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from workflows.workspace import backoff
from workflows.workspace.conditions import is_reachable
from workflows.workspace.events import FleetPermit
from workflows.workspace.phases.fencing import is_unconfirmed
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import Box, Fence, Intent, Provisioning, State

KEPT_OUTCOMES = 200
"""Outcomes kept for repeated request IDs: an incident has a few dozen. With the longest reasons in the
widest script they are 0.8 MB of the 2 MB that a continue-as-new may carry."""

MAX_DETAIL_CHARS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decision:
    outcome: OutcomeKind
    detail: str
    retry_at: datetime | None = None


def admit(
    state: State, request_input: RequestInput, at: datetime, *, permit: FleetPermit | None = None
) -> tuple[State, Request | None]:
    """Decide a request by the first row that applies; the same request ID always gets the same answer.

    An automatic request that passes every rule needs a fleet permit; `permit` is None until the fleet
    has answered.
    """
    for earlier in state.requests:
        if earlier.request_id == request_input.request_id:
            return state, earlier
    if any(waiting.request_id == request_input.request_id for waiting in state.pending):
        return state, None
    state = backoff.reset_when_healthy(state, at)
    if forces_replacement(state, request_input):
        state = replace(state, provisioning=None)
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
        requesters = (*state.provisioning.requesters, request_input.requested_by or "unnamed")[-50:]
        state = replace(state, provisioning=replace(state.provisioning, requesters=requesters))
    return _recorded(state, request_input, decision, at)


def merge_recorded(state: State, decided: Sequence[Request]) -> State:
    """Take in what the record knows to be decided. What it does not have yet stays the newest."""
    known = {request.request_id for request in state.requests}
    found = [request for request in decided if request.request_id not in known]
    if not found:
        return state
    recorded = len(state.requests) - state.unrecorded
    earlier = sorted((*state.requests[:recorded], *found), key=lambda request: request.at)
    kept = (*earlier, *state.requests[recorded:])[-max(KEPT_OUTCOMES, state.unrecorded) :]
    return replace(state, requests=kept)


def reject(state: State, request_input: RequestInput, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a request that cannot even be decided, so that its sender can see why."""
    return _recorded(state, request_input, _Decision(outcome=OutcomeKind.REJECTED, detail=detail), at)


def expire(state: State, request_input: RequestInput, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a request whose cause has gone while it waited to be decided."""
    return _recorded(state, request_input, _Decision(outcome=OutcomeKind.STALE, detail=detail), at)


def forces_replacement(state: State, request_input: RequestInput) -> bool:
    """Whether a human forces the replacement of a generation that only awaits its registration."""
    return (
        request_input.kind is RequestKind.RECREATE
        and request_input.forced
        and state.provisioning is not None
        and request_input.observed_generation == state.provisioning.generation
        and state.box.running_since is not None
    )


def _needs_fleet_permit(state: State, request_input: RequestInput) -> bool:
    """Whether accepting it is an automatic recreate; a program that starts what was stopped is none."""
    recreates = request_input.kind is RequestKind.RECREATE or (
        request_input.kind is RequestKind.START and state.intent is Intent.RUN
    )
    return state.consults and request_input.automatic and recreates


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
        return _Decision(outcome=OutcomeKind.JOINED, detail=f"generation {now} is on its way")
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
    # The first generation has no predecessor that a late request could have meant.
    return (
        state.generation > 1
        and state.online_since is not None
        and at - state.online_since < state.timings.recreate_grace
    )


def _deferral(state: State, request_input: RequestInput, at: datetime) -> _Decision | None:
    spent = backoff.budget_resets_at(state.budget, at)
    futile = backoff.repeated_failure(state.budget) if state.consults else None
    if futile is not None:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail=f"{backoff.SAME_FAILURE_LIMIT} recreates in a row failed with the same error "
            f"({futile}); request_start, or an admin's force, retries",
        )
    if state.budget.exhausted or spent is not None:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail="the recreate budget is spent; request_start, or an admin's force, passes it",
            retry_at=None if state.budget.exhausted else spent,
        )
    if not request_input.automatic:
        return None
    if state.frozen is not None and at < state.frozen.until:
        return _Decision(
            outcome=OutcomeKind.DEFERRED,
            detail=_fleet_refusal(state.frozen.reason, frozen=not state.frozen.at_capacity),
            retry_at=state.frozen.until,
        )
    spaced = backoff.backoff_until(state)
    if spaced is not None and at < spaced:
        return _Decision(
            outcome=OutcomeKind.DEFERRED, detail="too soon after the last recreate", retry_at=spaced
        )
    return None


def _decide_start(state: State, request_input: RequestInput, at: datetime) -> _Decision:
    if state.intent is Intent.RUN and state.provisioning is not None:
        return _Decision(outcome=OutcomeKind.JOINED, detail=f"generation {state.generation} is on its way")
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
            outcome=OutcomeKind.REJECTED, detail="only a human (requested_by admin…) may declare a box dead"
        )
    # Where no look has succeeded yet, nobody knows the unconfirmed_instances: the human does.
    unconfirmed_instances = {it.key for it in state.fence.unconfirmed_instances}
    meant = not unconfirmed_instances or request_input.instance_id in unconfirmed_instances
    unconfirmed = is_unconfirmed(state.fence, at, after=state.timings.fence_unconfirmed)
    if not unconfirmed or not meant:
        return _Decision(
            outcome=OutcomeKind.REJECTED,
            detail=f"the termination of {request_input.instance_id} is not what this workspace waits for",
        )
    return _Decision(outcome=OutcomeKind.ACCEPTED, detail=f"{request_input.instance_id} is taken to be gone")


def _apply_accepted(state: State, request_input: RequestInput, at: datetime) -> State:
    match request_input.kind:
        case RequestKind.RECREATE:
            state = replace(
                state, budget=backoff.record_recreate(state.budget, at, automatic=request_input.automatic)
            )
            return start_provisioning(state, at, requested_by=request_input.requested_by)
        case RequestKind.START:
            if state.intent is Intent.RUN and request_input.automatic:
                noted = backoff.record_recreate(state.budget, at, automatic=True)
            else:
                noted = replace(state.budget, streak=0, exhausted=False, failures=())
            state = replace(state, budget=noted)
            return start_provisioning(state, at, requested_by=request_input.requested_by)
        case RequestKind.STOP | RequestKind.DELETE:
            return replace(
                state,
                intent=Intent.STOP if request_input.kind is RequestKind.STOP else Intent.DELETE,
                closed=False,
                fence=Fence(),
                provisioning=None,
                online_since=None,
                halted=False,
                retry_recreate_at=None,
                retry=None,
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
    """Set out for the next generation: nothing that is known of the box before counts any longer."""
    first = state.generation == 0 or state.intent is Intent.STOP
    generation = state.generation + 1
    return replace(
        state,
        intent=Intent.RUN,
        generation=generation,
        closed=False,
        fence=Fence(),
        box=Box(),
        superseded_caller=None,  # the fence before the launch looks at all of them
        provisioning=Provisioning(
            generation=generation,
            since=at,
            requesters=(requested_by,) if requested_by else (),
            first_launch=first,
        ),
        online_since=None,
        halted=False,
        retry_recreate_at=None,
        retry=None,
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
