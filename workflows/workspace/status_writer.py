"""Keeps the workspace record and the search attributes in step with the state, one write at a time."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from workflows.shared.activity_options import RECORD
    from workflows.shared.run_activity import run_activity
    from workflows.workspace import conditions, contract, status
    from workflows.workspace.enums import Phase, Step
    from workflows.workspace.events import StateBehindRecord
    from workflows.workspace.phases import runner
    from workflows.workspace.requests import Request
    from workflows.workspace.state import Condition, LastError, State

RETRY_AFTER = timedelta(seconds=30)
"""The activity's own retries never end, except for a programming error: that must not loop."""

OUTCOMES_PER_WRITE = 200
"""After an outage of PostgreSQL thousands may be unrecorded; a payload is limited to 2 MB."""

_StatusKey = tuple[Phase, int, LastError | None, tuple[Condition, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """The result of a write."""

    requests: int
    """How many outcomes PostgreSQL has now, of those that it did not have."""
    revision: int
    """The newest revision in PostgreSQL."""
    behind: bool = False
    """PostgreSQL has a newer generation than the state that was to be written."""


class StatusWriter:
    """Remembers the last write."""

    def __init__(self) -> None:
        self._written: _StatusKey | None = None
        self._attributes: list[SearchAttributeUpdate[Any]] = []
        self._memo: dict[str, str | None] = {}

    def is_due(self, state: State, *, resting: bool) -> bool:
        """Whether PostgreSQL lacks something of the state."""
        return state.unrecorded > 0 or self._key(state, resting=resting) != self._written

    async def write(self, state: State, *, resting: bool) -> WriteResult:
        """Write the state under its revision. A newer status in PostgreSQL is not overwritten."""
        key, outcomes = self._key(state, resting=resting), _unrecorded(state)
        self._show(state, resting=resting)
        try:
            recorded = await run_activity(
                contract.record_status,
                _request(state, outcomes),
                RECORD,
                activity_id=f"record-{state.revision}",
                summary=f"record: {key[0]}",
            )
        except ActivityError as error:
            failure = runner.failure(Step.ENROLL, error)
            if isinstance(failure, StateBehindRecord):
                return WriteResult(requests=len(outcomes), revision=state.revision, behind=True)
            workflow.logger.error("status.write_failed", extra={"code": failure.code})
            await workflow.sleep(RETRY_AFTER, summary="record again")
            return WriteResult(requests=0, revision=state.revision)
        if recorded.revision == state.revision:
            self._written = key
        return WriteResult(requests=len(outcomes), revision=recorded.revision)

    def _show(self, state: State, *, resting: bool) -> None:
        attributes = status.search_attributes(state)
        if attributes != self._attributes:
            workflow.upsert_search_attributes(attributes)
            self._attributes = attributes
        # Intermediate states are not worth an event of their own.
        memo = status.memo(state)
        changed = {name: text for name, text in memo.items() if text != self._memo.get(name)}
        if resting and changed:
            workflow.upsert_memo(changed)
            self._memo = memo

    def _key(self, state: State, *, resting: bool) -> _StatusKey:
        # Conditions change with every step: alone they are written only when no step runs.
        before = self._written[3] if self._written else ()
        return (
            conditions.phase(state),
            state.generation,
            state.last_error,
            state.conditions if resting else before,
        )


def _unrecorded(state: State) -> tuple[Request, ...]:
    """The oldest outcomes that PostgreSQL does not have, as many as one write takes."""
    return state.requests[len(state.requests) - state.unrecorded :][:OUTCOMES_PER_WRITE]


def _request(state: State, outcomes: tuple[Request, ...]) -> contract.RecordStatus:
    return contract.RecordStatus(
        workspace_id=state.workspace_id,
        generation=state.generation,
        revision=state.revision,
        phase=conditions.phase(state),
        last_error=state.last_error,
        conditions=state.conditions,
        requests=outcomes,
    )
