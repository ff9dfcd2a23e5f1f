"""Converts the workspace's status and requests to database rows, and rows to requests. Pure."""

from typing import cast

from pydantic import TypeAdapter

from store.workspace.generations import Json
from store.workspace.status import RequestRow, Status
from workflows.workspace.contract import RecordStatus
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import Condition, LastError

_LAST_ERROR = TypeAdapter(LastError)
_CONDITIONS = TypeAdapter(tuple[Condition, ...])


def status_row(record: RecordStatus) -> Status:
    """The status as stored."""
    error = record.last_error
    return Status(
        generation=record.generation,
        revision=record.revision,
        phase=record.phase,
        last_error=None
        if error is None
        else cast("Json", _storable_json(_LAST_ERROR.dump_python(error, mode="json"))),
        conditions=cast(
            "list[Json]", _storable_json(_CONDITIONS.dump_python(record.conditions, mode="json"))
        ),
    )


def request_row(request: Request) -> RequestRow:
    """The request as stored."""
    return RequestRow(
        request_id=storable(request.request_id),
        kind=request.kind,
        requested_by=storable(request.requested_by),
        reason=storable(request.reason),
        observed_generation=request.observed_generation,
        force=request.force,
        decided_at=request.at,
        outcome=request.outcome,
        generation=request.generation,
        detail=storable(request.detail),
        retry_at=request.retry_at,
    )


def request_of(row: RequestRow) -> Request:
    """The request of a row. Raises `ValueError` if a later version wrote an unknown kind or outcome."""
    return Request(
        request_id=row.request_id,
        kind=RequestKind(row.kind),
        requested_by=row.requested_by,
        reason=row.reason,
        observed_generation=row.observed_generation,
        force=row.force,
        at=row.decided_at,
        outcome=OutcomeKind(row.outcome),
        generation=row.generation,
        detail=row.detail,
        retry_at=row.retry_at,
    )


def storable(value: str) -> str:
    """Replace NULs, which PostgreSQL cannot store and senders may put into any string."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _storable_json(value: object) -> object:
    match value:
        case str():
            return storable(value)
        case dict():
            return {key: _storable_json(member) for key, member in value.items()}
        case list() | tuple():
            return [_storable_json(member) for member in value]
        case _:
            return value
