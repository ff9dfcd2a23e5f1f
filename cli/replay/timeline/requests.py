"""Who asked, and what became of each request: outcomes from the record, arrivals from the messages.

Decides nothing again: an outcome is told as it was given.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from cli.replay.timeline.events import STATUS_ACTIVITY, Message, ParsedHistory
from cli.replay.timeline.model import RequestSummary, StatusChange
from cli.replay.timeline.payloads import object_in, objects
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import Phase

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
"""A workflow's clock is its task's, which begins after the message; times are cut to microseconds."""


def requests_of(
    history: ParsedHistory, snapshots: Sequence[StateSnapshot], status_changes: Sequence[StatusChange]
) -> tuple[tuple[RequestSummary, ...], tuple[Message, ...]]:
    """The decided requests in order, and the request messages that no decision is known of."""
    decided = sorted(_decided(history, snapshots).values(), key=lambda request: request.at)
    waiting = [message for message in history.messages if is_request(message)]
    asked = []
    for request in decided:
        message = _arrival(request, waiting)
        if message is not None:
            waiting.remove(message)
        asked.append(_summary(request, message, status_changes))
    return tuple(asked), tuple(waiting)


def is_request(message: Message) -> bool:
    """Whether a message becomes a request: all but news of the box, and freezes, do."""
    return message.name not in ("box_changed", "freeze")


def _decided(history: ParsedHistory, snapshots: Sequence[StateSnapshot]) -> dict[str, Request]:
    found: dict[str, Request] = {}
    for raw in _raw_requests(history):
        try:
            request = _REQUEST.validate_python(dict(raw))
        except ValidationError:
            continue  # of a release whose requests this one doesn't know; the message itself is told
        found.setdefault(request.request_id, request)
    for moment in _last_of_each_run(snapshots):
        for request in moment.state.requests:
            found.setdefault(request.request_id, request)
    earliest = history.begin - CLOCK_TOLERANCE
    # A run that continues carries old requests along; they belong to the runs before.
    return {key: request for key, request in found.items() if request.at >= earliest}


def _raw_requests(history: ParsedHistory) -> Iterator[Mapping[str, object]]:
    for call in history.calls:
        if call.name == STATUS_ACTIVITY:
            yield from objects(call.arguments, "requests")
    for message in history.messages:
        if message.update and message.answer:
            yield message.answer


def _last_of_each_run(snapshots: Sequence[StateSnapshot]) -> Iterable[StateSnapshot]:
    return {moment.run: moment for moment in snapshots}.values()


def _arrival(request: Request, waiting: Iterable[Message]) -> Message | None:
    """The message that asked: the oldest that fits and had come by then."""
    for message in waiting:
        # An update's event is written with its answer: only a signal's time is that of its arrival.
        came = message.update or message.at <= request.at + CLOCK_TOLERANCE
        if came and _matches(request, message):
            return message
    return None


def _matches(request: Request, message: Message) -> bool:
    if message.update and message.answer is not None:
        return message.answer.get("request_id") == request.request_id
    kind = _KINDS.get(message.name, RequestKind.UNKNOWN)
    if kind is not request.kind:
        return False
    if request.outcome is OutcomeKind.REJECTED and "malformed" in request.detail:
        return True  # such a request has none of the message's members
    named = message.arguments.get("request_id")
    return (
        message.arguments.get("requested_by", "") == request.requested_by
        and message.arguments.get("reason", "") == request.reason
        and message.arguments.get("observed_generation") == request.observed_generation
        and (named is None or named == request.request_id)
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
    for standing in status_changes:
        if standing.at >= request.at and standing.phase is wanted:
            return (
                standing.at
                if wanted is not Phase.ONLINE or standing.generation == request.generation
                else None
            )
    return None


def carried_instance(history: ParsedHistory) -> tuple[str, int] | None:
    """The instance that the first run here took over, and its generation."""
    instance = object_in(history.carried, "box").get("instance_id")
    generation = history.carried.get("generation")
    return (instance, generation) if isinstance(instance, str) and isinstance(generation, int) else None
