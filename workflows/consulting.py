"""Automatic requests that wait for the fleet's word, and what becomes of them. Standard library only.

Whether the fleet allows a recreate is judged in `fleet`; here it is an event like others.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows import conditions, own_requests
from workflows.admission import admit, expire, reject
from workflows.facts import Consulted, StepFailed
from workflows.requests import Ask, OutcomeKind, Request, RequestKind
from workflows.state import Frozen, Intent, State

ASK_AGAIN_AFTER = timedelta(seconds=60)
"""Where nobody could say: what cannot be read now may be readable in a minute."""


def recreates_by_itself(before: State, after: State) -> bool:
    """Whether an automatic request was accepted between the two."""
    added = after.unrecorded - before.unrecorded
    new = after.requests[-added:] if added > 0 else ()
    recreate = (RequestKind.RECREATE, RequestKind.START)
    return any(it.outcome is OutcomeKind.ACCEPTED and not it.human and it.kind in recreate for it in new)


def consulted(state: State, word: Consulted, at: datetime) -> State:
    """Decide what waited; a refusal holds for those that come until it is worth asking again."""
    waiting, state = state.pending, replace(state, pending=())
    for ask in waiting:
        state = _decided(state, ask, at, word)
    if word.granted or not waiting or state.frozen is not None:
        return state
    frozen = Frozen(until=at + word.retry_after, reason=word.reason, busy=not word.frozen)
    return replace(state, frozen=frozen)


def unreadable(failure: StepFailed) -> Consulted:
    """What it means that the fleet could not be asked: nothing automatic begins in the dark."""
    return Consulted(
        granted=False,
        frozen=True,
        reason=f"its state cannot be read ({failure.code}): {failure.message}",
        retry_after=ASK_AGAIN_AFTER,
    )


def settled(state: State, at: datetime) -> State:
    """Decide those that need no word any more: others came first, or the cause is gone."""
    waiting, state = state.pending, replace(state, pending=())
    for ask in waiting:
        state = _decided(state, ask, at, None)
    return state


def _decided(state: State, ask: Ask, at: datetime, word: Consulted | None) -> State:
    decided: Request | None
    if state.intent is not Intent.RUN:
        state, _ = reject(state, ask, f"the workspace is meant to {state.intent}, by now", at=at)
        return state
    own = ask.requested_by == own_requests.REQUESTER
    if own and conditions.is_serving(state):
        state, _ = expire(state, ask, f"generation {state.generation} came online meanwhile", at=at)
        return state
    state, decided = admit(state, ask, at, word=word)
    return own_requests.answered(state, decided, at) if own and decided is not None else state
