"""Changes of the state that several steps share: success, failure, retry. Standard library only."""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.workspace import backoff
from workflows.workspace.admission import admit
from workflows.workspace.enums import Step
from workflows.workspace.events import StepFailed
from workflows.workspace.state import BackingOff, Halted, LastError, Retry, State

INITIAL_RETRY_INTERVAL = timedelta(seconds=5)
MAX_RETRY_INTERVAL = timedelta(seconds=60)
"""Between retries that the status shows. The activities' own retry policies cover shorter failures."""

SLOW_RETRY = timedelta(seconds=60)
"""For steps that must succeed although a retry is unlikely to help, such as a termination."""

MAX_MESSAGE_CHARS = 500
"""In the status. The workflow's history has the whole text."""


def record_failure(state: State, failure: StepFailed, at: datetime) -> State:
    """Add a failure to the errors: it replaces the step's last one, or counts up if it is the same."""
    new = LastError(
        code=failure.code,
        phase=failure.step,
        message=failure.message[:MAX_MESSAGE_CHARS],
        generation=state.generation,
        attempt=state.box.attempt,
        first_at=at,
        last_at=at,
        count=1,
        retryable=failure.retryable,
        hint=failure.hint,
        refused=failure.refused,
    )
    for old in state.errors:
        if old.phase is failure.step and old.code == failure.code:
            new = replace(new, first_at=old.first_at, count=old.count + 1)
    return replace(state, errors=(*_without(state, failure.step), new))


def clear_failure(state: State, step: Step) -> State:
    """Remove the failure of a step from the errors."""
    return replace(state, errors=_without(state, step))


def succeeded(state: State, step: Step) -> State:
    """Clear the step's failure and its retry."""
    return replace(clear_failure(state, step), retry=None)


def retry(state: State, step: Step, at: datetime, *, after: timedelta | None = None) -> State:
    """Run the step again after `after`; by default 5 s, doubled with each failure up to 60 s."""
    failures = state.retry.failures + 1 if state.retry is not None and state.retry.step is step else 1
    pause = after or min(INITIAL_RETRY_INTERVAL * 2 ** min(failures - 1, 10), MAX_RETRY_INTERVAL)
    return replace(state, retry=Retry(step=step, failures=failures, not_before=at + pause))


def step_failed(state: State, event: StepFailed, at: datetime, *, halts: bool) -> State:
    """Record the failure, and retry the step where that can help."""
    state = record_failure(state, replace(event, retryable=event.retryable or not halts), at)
    if event.retryable:
        return retry(state, event.step, at)
    if halts:
        return state.now_waiting(Halted(step=event.step))
    return retry(state, event.step, at, after=SLOW_RETRY)


def instance_ended(state: State, step: Step, detail: str, at: datetime) -> State:
    """The instance ended before it ran: request a recreate.

    It needs another generation: two boxes of one generation could not be fenced from each other.
    """
    failure = StepFailed(
        step=step,
        code="instance_ended",
        message=f"{state.box.instance_id} ended before it ran: {detail}",
        hint="See the instance's state reason in EC2; often a volume, key or image that cannot be used.",
        retryable=True,
    )
    budget = backoff.record_failed_recreate(state, phase=failure.step, code=failure.code)
    state = replace(record_failure(state, failure, at), budget=budget)
    return state.now_waiting(BackingOff(until=at, reason=failure.message))


def request_recreate(state: State, at: datetime) -> State:
    """Send the workflow's own request to replace the current box. It passes the same admission rules."""
    state, decided = admit(state, backoff.recreate_request(state, at), at)
    return state if decided is None else backoff.on_decided(state, decided, at)


def _without(state: State, step: Step) -> tuple[LastError, ...]:
    return tuple(error for error in state.errors if error.phase is not step)
