"""The failures that stand on the record, one for each step. Standard library only."""

from dataclasses import replace
from datetime import datetime

from workflows.workspace.events import StepFailed
from workflows.workspace.state import LastError, State, Step

MAX_MESSAGE_CHARS = 500
"""The record is read by people; the whole text is in the workflow's history."""


def record_failure(state: State, failure: StepFailed, at: datetime) -> tuple[LastError, ...]:
    """The errors with this failure: counted if it is the same again, in place of its step's last one."""
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
    )
    for old in state.errors:
        if old.phase is failure.step and old.code == failure.code:
            new = replace(new, first_at=old.first_at, count=old.count + 1)
    return (*clear_failure(state.errors, failure.step), new)


def clear_failure(errors: tuple[LastError, ...], step: Step) -> tuple[LastError, ...]:
    """The errors without those of a step that has succeeded."""
    return tuple(error for error in errors if error.phase is not step)
