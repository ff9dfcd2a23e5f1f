"""Keeping the record and the search attributes in step with the state, one write at a time.

Says what is worth a write; what the state is, is the lifecycle's.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    from workflows.shared.activity_options import RECORD
    from workflows.workspace import conditions, contract, lifecycle, status
    from workflows.workspace.phases import runner
    from workflows.workspace.requests import Request
    from workflows.workspace.state import Condition, LastError, Phase, State, Step

RETRY_AFTER = timedelta(seconds=30)
"""Only an error in the program ends the retries of recording; it must not spin."""

OUTCOMES_PER_WRITE = 200
"""After an outage of the database thousands may wait; a payload has a limit of 2 MB."""

SHOWS = "show-the-reason-and-a-memo"
"""The patch since which the reason is kept up to date by itself, and a memo says it in words."""

_StatusKey = tuple[Phase, int, LastError | None, tuple[Condition, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteResult:
    """What a write came to."""

    requests: int
    """So many outcomes are in the database now."""
    revision: int
    """The newest revision that it has."""
    ahead: bool = False
    """It has a newer generation than the state that was to be written."""


class StatusWriter:
    """Remembers what was written last."""

    def __init__(self) -> None:
        self._written: _StatusKey | None = None
        self._attributes: list[SearchAttributeUpdate[Any]] = []
        self._memo: dict[str, str | None] = {}

    def is_due(self, state: State, *, resting: bool) -> bool:
        """Whether there is something that the record does not say yet."""
        return state.unrecorded > 0 or self._shown(state, resting=resting) != self._written

    async def write(self, state: State, *, resting: bool) -> WriteResult:
        """Write the state under its revision; a newer status that stands already is left alone."""
        shown, outcomes = self._shown(state, resting=resting), _unrecorded(state)
        self._show(state, resting=resting)
        try:
            recorded = await runner.call(
                contract.record_status,
                _record(state, outcomes),
                RECORD,
                activity_id=f"record-{state.revision}",
                summary=f"record: {shown[0]}",
            )
        except ActivityError as error:
            failure = runner.failure(Step.ENROLL, error)
            if isinstance(failure, lifecycle.StateBehindRecord):
                return WriteResult(requests=len(outcomes), revision=state.revision, ahead=True)
            workflow.logger.error("status.unrecorded", extra={"code": failure.code})
            await workflow.sleep(RETRY_AFTER, summary="record again")
            return WriteResult(requests=0, revision=state.revision)
        if recorded.revision == state.revision:
            self._written = shown
        return WriteResult(requests=len(outcomes), revision=recorded.revision)

    def _show(self, state: State, *, resting: bool) -> None:
        attributes = status.search_attributes(state)
        # Runs that began before the reason was shown did not write for its sake alone.
        if attributes != self._attributes and (
            attributes[:-1] != self._attributes[:-1] or workflow.patched(SHOWS)
        ):
            workflow.upsert_search_attributes(attributes)
            self._attributes = attributes
        # What a box passes through on its way is worth no event.
        memo = status.memo(state)
        changed = {name: text for name, text in memo.items() if text != self._memo.get(name)}
        if resting and changed and workflow.patched(SHOWS):
            workflow.upsert_memo(changed)
            self._memo = memo

    def _shown(self, state: State, *, resting: bool) -> _StatusKey:
        # Conditions change with every step: alone they are worth a write only when the workflow rests.
        before = self._written[3] if self._written else ()
        return (
            conditions.phase(state),
            state.generation,
            state.last_error,
            state.conditions if resting else before,
        )


def _unrecorded(state: State) -> tuple[Request, ...]:
    """The oldest outcomes that the database does not have, as many as one write takes."""
    return state.requests[len(state.requests) - state.unrecorded :][:OUTCOMES_PER_WRITE]


def _record(state: State, outcomes: tuple[Request, ...]) -> contract.RecordStatus:
    """What goes to the database: the status, and the outcomes that it does not have yet."""
    return contract.RecordStatus(
        workspace_id=state.workspace_id,
        generation=state.generation,
        revision=state.revision,
        phase=conditions.phase(state),
        last_error=state.last_error,
        conditions=state.conditions,
        requests=outcomes,
    )
