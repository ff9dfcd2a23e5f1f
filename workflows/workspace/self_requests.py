"""The requests that the lifecycle makes itself, and what it does when one is put off. Standard library only.

They go through the same table as everybody's; when one is due is decided in `deadlines`.
"""

from dataclasses import replace
from datetime import datetime

from workflows.workspace import backoff
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import State

REQUESTER = "lifecycle"
"""Who asks when a deadline was missed; automatic like any other program."""


def recreate_request(state: State, at: datetime) -> RequestInput:
    """Ask for another box in place of the current one."""
    return RequestInput(
        kind=RequestKind.RECREATE,
        request_id=f"{REQUESTER}-{state.generation}-{at:%Y%m%dT%H%M%S%f}",
        requested_by=REQUESTER,
        reason=state.last_error.message if state.last_error else "the box is not online",
        observed_generation=state.generation,
    )


def on_decided(state: State, decided: Request, at: datetime) -> State:
    """What follows from the answer: a deferred request is repeated, unless only a human can help."""
    if decided.outcome is not OutcomeKind.DEFERRED:
        return state
    if decided.retry_at is None or backoff.budget_resets_at(state.budget, at) is not None:
        return replace(state, budget=replace(state.budget, exhausted=True))
    return replace(state, retry_recreate_at=decided.retry_at)
