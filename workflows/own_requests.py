"""The requests that the lifecycle makes itself, and what it does when one is put off. Standard library only.

They go through the same table as everybody's; when one is due is decided in `deadlines`.
"""

from dataclasses import replace
from datetime import datetime

from workflows import recovery
from workflows.requests import Ask, OutcomeKind, Request, RequestKind
from workflows.state import State

REQUESTER = "lifecycle"
"""Who asks when a deadline was missed; automatic like any other program."""


def replacement(state: State, at: datetime) -> Ask:
    """Ask for another box in place of the current one."""
    return Ask(
        kind=RequestKind.RECREATE,
        request_id=f"{REQUESTER}-{state.generation}-{at:%Y%m%dT%H%M%S%f}",
        requested_by=REQUESTER,
        reason=state.last_error.message if state.last_error else "the box is not online",
        observed_generation=state.generation,
    )


def answered(state: State, decided: Request, at: datetime) -> State:
    """What follows from the answer: a deferred request is repeated, unless only a human can help."""
    if decided.outcome is not OutcomeKind.DEFERRED:
        return state
    if decided.retry_at is None or recovery.spent_until(state.recovery, at) is not None:
        return replace(state, recovery=replace(state.recovery, exhausted=True))
    return replace(state, ask_again_at=decided.retry_at)
