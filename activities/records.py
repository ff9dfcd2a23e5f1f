"""Writing the status and the outcomes of requests to the workspace's record.

What they say is the lifecycle's; nothing is judged here.
"""

from typing import cast

import structlog
from pydantic import TypeAdapter
from temporalio import activity

from activities import failures
from activities.execution import execution
from activities.ports import RecordStatus, StatusRecorded
from store import records
from store.generations import Json
from store.pool import Pool, connection
from store.records import RequestRow, Status
from workflows.requests import Request
from workflows.state import Condition, LastError

_LAST_ERROR = TypeAdapter(LastError)
_CONDITIONS = TypeAdapter(tuple[Condition, ...])

log = structlog.get_logger()


class Records:
    """Needs PostgreSQL."""

    def __init__(self, *, pool: Pool) -> None:
        self._pool = pool

    @activity.defn(name="record_status")
    async def record_status(self, request: RecordStatus) -> StatusRecorded:
        """Write if no newer revision stands; outcomes are inserted once for each request ID."""
        workspace_id = request.workspace_id
        async with execution(workspace_id, request.generation):
            async with connection(self._pool) as conn, conn.transaction():
                await records.write_status(conn, workspace_id, _status(request))
                standing = await records.standing(conn, workspace_id)
                if standing is None:
                    raise failures.unknown_workspace(workspace_id)
                await records.add_requests(conn, workspace_id, map(_row, request.requests))
            # Only after the commit: an outcome is told to its requester, and must not be lost.
            if standing.generation > request.generation:
                raise failures.superseded(request.generation, by=f"generation {standing.generation} is open")
            await log.ainfo("status.recorded", phase=request.phase, revision=standing.revision)
            return StatusRecorded(revision=standing.revision)


def _status(request: RecordStatus) -> Status:
    error = request.last_error
    return Status(
        generation=request.generation,
        revision=request.revision,
        phase=request.phase,
        last_error=None
        if error is None
        else cast("Json", _storable(_LAST_ERROR.dump_python(error, mode="json"))),
        conditions=cast("list[Json]", _storable(_CONDITIONS.dump_python(request.conditions, mode="json"))),
    )


def _row(request: Request) -> RequestRow:
    return RequestRow(
        request_id=_text(request.request_id),
        kind=request.kind,
        requested_by=_text(request.requested_by),
        reason=_text(request.reason),
        observed_generation=request.observed_generation,
        force=request.force,
        at=request.at,
        outcome=request.outcome,
        generation=request.generation,
        detail=_text(request.detail),
        retry_at=request.retry_at,
    )


def _storable(value: object) -> object:
    """The same JSON without NULs, which PostgreSQL cannot store and a sender may put anywhere."""
    match value:
        case str():
            return _text(value)
        case dict():
            return {key: _storable(member) for key, member in value.items()}
        case list() | tuple():
            return [_storable(member) for member in value]
        case _:
            return value


def _text(value: str) -> str:
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
