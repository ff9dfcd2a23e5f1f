"""Matches requests with their messages: outcomes from records and states, arrival times from messages."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from cli.replay.timeline.events import STATUS_ACTIVITY, Message, ParsedHistory
from cli.replay.timeline.model import RequestSummary, StatusChange
from cli.replay.timeline.payloads import object_in, objects
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind, Request, RequestKind

_REQUEST = TypeAdapter(Request)

_KINDS = {
    "recreate": RequestKind.RECREATE,
    "stop": RequestKind.STOP,
    "start": RequestKind.START,
    "delete": RequestKind.DELETE,
    "request_recreate": RequestKind.RECREATE,
    "request_stop": RequestKind.STOP,
    "request_start": RequestKind.START,
    "request_delete": RequestKind.DELETE,
    "declare_dead": RequestKind.DECLARE_DEAD,
}

_SERVED_PHASES = {
    RequestKind.RECREATE: Phase.ONLINE,
    RequestKind.START: Phase.ONLINE,
    RequestKind.STOP: Phase.STOPPED,
    RequestKind.DELETE: Phase.DELETED,
}

CLOCK_TOLERANCE = timedelta(milliseconds=1)
"""Difference between a message's time and the workflow's clock: times are truncated to microseconds."""


def requests_of(
    history: ParsedHistory, snapshots: Sequence[StateSnapshot], status_changes: Sequence[StatusChange]
) -> tuple[tuple[RequestSummary, ...], tuple[Message, ...]]:
    """The decided requests, oldest first, and the request messages without a known decision."""
    decided = sorted(_decided(history, snapshots).values(), key=lambda request: request.at)
    waiting = [message for message in history.messages if is_request(message)]
    summaries = []
    for request in decided:
        message = _arrival(request, waiting)
        if message is not None:
            waiting.remove(message)
        summaries.append(_summary(request, message, status_changes))
    return tuple(summaries), tuple(waiting)


def is_request(message: Message) -> bool:
    """Whether a message is a request: all are, except box events and freezes."""
    return message.name not in ("box_changed", "freeze")


def _decided(history: ParsedHistory, snapshots: Sequence[StateSnapshot]) -> dict[str, Request]:
    found: dict[str, Request] = {}
    for raw in _raw_requests(history):
        try:
            request = _REQUEST.validate_python(dict(raw))
        except ValidationError:
            continue  # written by another release; the message itself becomes an entry
        found.setdefault(request.request_id, request)
    for snapshot in _last_of_each_run(snapshots):
        for request in snapshot.requests:
            found.setdefault(request.request_id, request)
    earliest = history.begin - CLOCK_TOLERANCE
    # A continued run carries the requests of earlier runs.
    return {key: request for key, request in found.items() if request.at >= earliest}


def _raw_requests(history: ParsedHistory) -> Iterator[Mapping[str, object]]:
    for call in history.calls:
        if call.name == STATUS_ACTIVITY:
            yield from objects(call.arguments, "requests")
    for message in history.messages:
        if message.update and message.response:
            yield message.response


def _last_of_each_run(snapshots: Sequence[StateSnapshot]) -> Iterable[StateSnapshot]:
    return {snapshot.run: snapshot for snapshot in snapshots}.values()


def _arrival(request: Request, waiting: Iterable[Message]) -> Message | None:
    """The message of a request: the oldest one that matches and had arrived when it was decided."""
    for message in waiting:
        # An update's event is written with its response; only a signal's event has its arrival time.
        arrived = message.update or message.at <= request.at + CLOCK_TOLERANCE
        if arrived and _matches(request, message):
            return message
    return None


def _matches(request: Request, message: Message) -> bool:
    if message.update and message.response is not None:
        return message.response.get("request_id") == request.request_id
    kind = _KINDS.get(message.name, RequestKind.UNKNOWN)
    if kind is not request.kind:
        return False
    if request.outcome is OutcomeKind.REJECTED and "malformed" in request.detail:
        return True  # a malformed request has no members to compare
    request_id = message.arguments.get("request_id")
    return (
        message.arguments.get("requested_by", "") == request.requested_by
        and message.arguments.get("reason", "") == request.reason
        and message.arguments.get("observed_generation") == request.observed_generation
        and request_id in (None, request.request_id)
    )


def _summary(
    request: Request, message: Message | None, status_changes: Sequence[StatusChange]
) -> RequestSummary:
    return RequestSummary(
        request_id=request.request_id,
        kind=request.kind,
        requested_by=request.requested_by,
        reason=request.reason,
        observed_generation=request.observed_generation,
        force=request.force,
        outcome=request.outcome,
        generation=request.generation,
        detail=request.detail,
        retry_at=request.retry_at,
        decided_at=request.at,
        arrived_at=min(message.at, request.at) if message else None,
        run=message.run if message else None,
        event=message.event if message else None,
        served_at=_served_at(request, status_changes),
    )


def _served_at(request: Request, status_changes: Sequence[StatusChange]) -> datetime | None:
    wanted = _SERVED_PHASES.get(request.kind)
    if wanted is None or request.outcome not in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED):
        return None
    reached = next((it for it in status_changes if it.at >= request.at and it.phase is wanted), None)
    if reached is None or (wanted is Phase.ONLINE and reached.generation != request.generation):
        return None
    return reached.at


def carried_instance(history: ParsedHistory) -> tuple[str, int] | None:
    """The instance and generation in the state that the first run received."""
    instance = object_in(history.carried, "box").get("instance_id")
    generation = history.carried.get("generation")
    return (instance, generation) if isinstance(instance, str) and isinstance(generation, int) else None
