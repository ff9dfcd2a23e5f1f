"""What becomes of a request: the admission table. Standard library only.

Decides and records the outcome; what an accepted request sets in motion is up to `lifecycle`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from workflows import recovery
from workflows.conditions import is_reachable
from workflows.facts import Consulted
from workflows.fencing import is_unconfirmed
from workflows.requests import Ask, OutcomeKind, Request, RequestKind
from workflows.state import Box, Fence, Flight, Intent, State

REMEMBERED = 200
"""Outcomes kept for repeated request IDs: an incident has a few dozen. With the longest reasons in the
widest script they are 0.8 MB of the 2 MB that a continue-as-new may carry."""

LONGEST_DETAIL = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    outcome: OutcomeKind
    detail: str
    retry_at: datetime | None = None


def admit(
    state: State, ask: Ask, at: datetime, *, word: Consulted | None = None
) -> tuple[State, Request | None]:
    """Decide a request by the first row that applies; the same request ID always gets the same answer.

    An automatic one that nothing here stands against waits for the fleet's `word`: None until that is there.
    """
    for earlier in state.requests:
        if earlier.request_id == ask.request_id:
            return state, earlier
    if any(waiting.request_id == ask.request_id for waiting in state.pending):
        return state, None
    state = recovery.healthy(state, at)
    if gives_up_registration(state, ask):
        state = replace(state, flight=None)
    verdict = _decide(state, ask, at)
    if verdict.outcome is OutcomeKind.ACCEPTED and _minds_the_fleet(state, ask):
        if word is None:
            return replace(state, pending=(*state.pending, ask)), None
        if not word.granted:
            verdict = _Verdict(
                outcome=OutcomeKind.DEFERRED,
                detail=_held_up(word.reason, frozen=word.frozen),
                retry_at=at + word.retry_after,
            )
    if verdict.outcome is OutcomeKind.ACCEPTED:
        state = _take_up(state, ask, at)
    elif verdict.outcome is OutcomeKind.JOINED and state.flight is not None:
        waiting = (*state.flight.waiting, ask.requested_by or "unnamed")[-50:]
        state = replace(state, flight=replace(state.flight, waiting=waiting))
    return _recorded(state, ask, verdict, at)


def remembering(state: State, decided: Sequence[Request]) -> State:
    """Take in what the record knows to be decided. What it does not have yet stays the newest."""
    known = {request.request_id for request in state.requests}
    found = [request for request in decided if request.request_id not in known]
    if not found:
        return state
    recorded = len(state.requests) - state.unrecorded
    earlier = sorted((*state.requests[:recorded], *found), key=lambda request: request.at)
    kept = (*earlier, *state.requests[recorded:])[-max(REMEMBERED, state.unrecorded) :]
    return replace(state, requests=kept)


def reject(state: State, ask: Ask, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a request that cannot even be decided, so that its sender can see why."""
    return _recorded(state, ask, _Verdict(outcome=OutcomeKind.REJECTED, detail=detail), at)


def expire(state: State, ask: Ask, detail: str, *, at: datetime) -> tuple[State, Request]:
    """Record a request whose cause has gone while it waited to be decided."""
    return _recorded(state, ask, _Verdict(outcome=OutcomeKind.STALE, detail=detail), at)


def gives_up_registration(state: State, ask: Ask) -> bool:
    """Whether a human forces the replacement of a generation that only awaits its registration."""
    return (
        ask.kind is RequestKind.RECREATE
        and ask.forced
        and state.flight is not None
        and ask.observed_generation == state.flight.generation
        and state.box.running_since is not None
    )


def _minds_the_fleet(state: State, ask: Ask) -> bool:
    """Whether accepting it is an automatic recreate; a program that starts what was stopped is none."""
    recreates = ask.kind is RequestKind.RECREATE or (
        ask.kind is RequestKind.START and state.intent is Intent.RUN
    )
    return state.consults and ask.automatic and recreates


def _held_up(reason: str, *, frozen: bool) -> str:
    return f"the fleet is frozen: {reason}" if frozen else f"the fleet is busy: {reason}"


def _decide(state: State, ask: Ask, at: datetime) -> _Verdict:
    if state.intent is Intent.DELETE:
        if ask.kind is RequestKind.DELETE:
            return _Verdict(outcome=OutcomeKind.JOINED, detail="the workspace is being deleted already")
        return _Verdict(outcome=OutcomeKind.REJECTED, detail="the workspace is deleted or being deleted")
    match ask.kind:
        case RequestKind.RECREATE:
            return _decide_recreate(state, ask, at)
        case RequestKind.STOP:
            if state.intent is Intent.STOP:
                return _Verdict(outcome=OutcomeKind.JOINED, detail="the workspace is stopped, or stopping")
            return _Verdict(outcome=OutcomeKind.ACCEPTED, detail="stopping")
        case RequestKind.START:
            return _decide_start(state, ask, at)
        case RequestKind.DELETE:
            return _Verdict(outcome=OutcomeKind.ACCEPTED, detail="deleting")
        case RequestKind.DECLARE_DEAD:
            return _decide_declare_dead(state, ask, at)
        case RequestKind.UNKNOWN:
            return _Verdict(outcome=OutcomeKind.REJECTED, detail="no such request")
        case _ as never:
            assert_never(never)


def _decide_recreate(state: State, ask: Ask, at: datetime) -> _Verdict:
    now, seen = state.generation, ask.observed_generation
    if state.flight is not None and seen in (None, now, now - 1):
        return _Verdict(outcome=OutcomeKind.JOINED, detail=f"generation {now} is on its way")
    if seen is not None and seen < now:
        return _Verdict(
            outcome=OutcomeKind.STALE, detail=f"generation {seen} is gone; generation {now} is current"
        )
    if seen is None and _settling(state, at):
        return _Verdict(
            outcome=OutcomeKind.STALE,
            detail=f"generation {now} has just come online; name it in observed_generation to replace it",
        )
    if seen is not None and seen > now:
        return _Verdict(
            outcome=OutcomeKind.REJECTED, detail=f"generation {seen} does not exist; {now} is current"
        )
    if state.intent is Intent.STOP:
        return _Verdict(outcome=OutcomeKind.REJECTED, detail="stopped by intent; request_start starts it")
    if not ask.forced and (deferral := _deferral(state, ask, at)):
        return deferral
    return _Verdict(outcome=OutcomeKind.ACCEPTED, detail=f"generation {now + 1} replaces {now}")


def _settling(state: State, at: datetime) -> bool:
    # The first generation has no predecessor that a late request could have meant.
    return (
        state.generation > 1
        and state.online_since is not None
        and at - state.online_since < state.timings.settling
    )


def _deferral(state: State, ask: Ask, at: datetime) -> _Verdict | None:
    spent = recovery.spent_until(state.recovery, at)
    futile = recovery.futile(state.recovery) if state.consults else None
    if futile is not None:
        return _Verdict(
            outcome=OutcomeKind.DEFERRED,
            detail=f"{recovery.SAME_FAILURES} recreates in a row failed alike ({futile}), and a third would; "
            "request_start, or an admin's force, tries again",
        )
    if state.recovery.exhausted or spent is not None:
        return _Verdict(
            outcome=OutcomeKind.DEFERRED,
            detail="the recreate budget is spent; request_start, or an admin's force, passes it",
            retry_at=None if state.recovery.exhausted else spent,
        )
    if not ask.automatic:
        return None
    if state.frozen is not None and at < state.frozen.until:
        return _Verdict(
            outcome=OutcomeKind.DEFERRED,
            detail=_held_up(state.frozen.reason, frozen=not state.frozen.busy),
            retry_at=state.frozen.until,
        )
    spaced = recovery.spaced_until(state)
    if spaced is not None and at < spaced:
        return _Verdict(
            outcome=OutcomeKind.DEFERRED, detail="too soon after the last recreate", retry_at=spaced
        )
    return None


def _decide_start(state: State, ask: Ask, at: datetime) -> _Verdict:
    if state.intent is Intent.RUN and state.flight is not None:
        return _Verdict(outcome=OutcomeKind.JOINED, detail=f"generation {state.generation} is on its way")
    if state.intent is Intent.RUN and is_reachable(state) and not state.halted:
        return _Verdict(
            outcome=OutcomeKind.JOINED, detail="the workspace runs; request_recreate replaces its box"
        )
    if state.intent is Intent.RUN and ask.automatic and (deferral := _deferral(state, ask, at)):
        return deferral
    return _Verdict(outcome=OutcomeKind.ACCEPTED, detail=f"starting generation {state.generation + 1}")


def _decide_declare_dead(state: State, ask: Ask, at: datetime) -> _Verdict:
    if ask.automatic:
        return _Verdict(
            outcome=OutcomeKind.REJECTED, detail="only a human (requested_by admin…) may declare a box dead"
        )
    # Where no look has succeeded yet, nobody knows the suspects: the human does.
    suspects = {it.key for it in state.fence.suspects}
    meant = not suspects or ask.instance_id in suspects
    unconfirmed = is_unconfirmed(state.fence, at, after=state.timings.fence_unconfirmed)
    if not unconfirmed or not meant:
        return _Verdict(
            outcome=OutcomeKind.REJECTED,
            detail=f"the termination of {ask.instance_id} is not what this workspace waits for",
        )
    return _Verdict(outcome=OutcomeKind.ACCEPTED, detail=f"{ask.instance_id} is taken to be gone")


def _take_up(state: State, ask: Ask, at: datetime) -> State:
    match ask.kind:
        case RequestKind.RECREATE:
            state = replace(state, recovery=recovery.noted(state.recovery, at, automatic=ask.automatic))
            return begin_flight(state, at, waiting=ask.requested_by)
        case RequestKind.START:
            if state.intent is Intent.RUN and ask.automatic:
                noted = recovery.noted(state.recovery, at, automatic=True)
            else:
                noted = replace(state.recovery, streak=0, exhausted=False, failures=())
            state = replace(state, recovery=noted)
            return begin_flight(state, at, waiting=ask.requested_by)
        case RequestKind.STOP | RequestKind.DELETE:
            return replace(
                state,
                intent=Intent.STOP if ask.kind is RequestKind.STOP else Intent.DELETE,
                closed=False,
                fence=Fence(),
                flight=None,
                online_since=None,
                halted=False,
                ask_again_at=None,
                retry=None,
            )
        case RequestKind.DECLARE_DEAD:
            dead = (*state.fence.declared_dead, ask.instance_id or "")
            fence = replace(state.fence, declared_dead=dead)
            return replace(state, fence=fence, retry=None)
        case RequestKind.UNKNOWN:
            return state
        case _ as never:
            assert_never(never)


def begin_flight(state: State, at: datetime, *, waiting: str = "") -> State:
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
        intruder=None,  # the fence before the launch looks at all of them
        flight=Flight(
            generation=generation, since=at, waiting=(waiting,) if waiting else (), first_launch=first
        ),
        online_since=None,
        halted=False,
        ask_again_at=None,
        retry=None,
    )


def _recorded(state: State, ask: Ask, verdict: _Verdict, at: datetime) -> tuple[State, Request]:
    request = Request(
        request_id=ask.request_id,
        kind=ask.kind,
        requested_by=ask.requested_by,
        reason=ask.reason,
        observed_generation=ask.observed_generation,
        force=ask.force,
        at=at,
        outcome=verdict.outcome,
        generation=state.generation,
        detail=verdict.detail[:LONGEST_DETAIL],
        retry_at=verdict.retry_at,
    )
    unrecorded = state.unrecorded + 1
    kept = (*state.requests, request)[-max(REMEMBERED, unrecorded) :]
    return replace(state, requests=kept, unrecorded=unrecorded), request
