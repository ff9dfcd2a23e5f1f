"""Who asked, and what became of each request: outcomes from the record, arrivals from the messages.

Decides nothing again: an outcome is told as it was given.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from workers.story.model import Asked, Moment, Standing
from workers.story.payloads import inner, objects
from workers.story.reading import RECORDING, Message, Reading
from workflows.requests import OutcomeKind, Request, RequestKind
from workflows.state import Phase

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

_SERVED = {
    RequestKind.RECREATE: Phase.ONLINE,
    RequestKind.START: Phase.ONLINE,
    RequestKind.STOP: Phase.STOPPED,
    RequestKind.DELETE: Phase.DELETED,
}

CLOCKS_APART = timedelta(milliseconds=1)
"""A workflow's clock is its task's, which begins after the message; times are cut to microseconds."""


def requests_of(
    reading: Reading, moments: Sequence[Moment], standings: Sequence[Standing]
) -> tuple[tuple[Asked, ...], tuple[Message, ...]]:
    """The decided requests in order, and the request messages that no decision is known of."""
    decided = sorted(_decided(reading, moments).values(), key=lambda request: request.at)
    waiting = [message for message in reading.messages if is_request(message)]
    asked = []
    for request in decided:
        message = _arrival(request, waiting)
        if message is not None:
            waiting.remove(message)
        asked.append(_asked(request, message, standings))
    return tuple(asked), tuple(waiting)


def is_request(message: Message) -> bool:
    """Whether a message becomes a request: all but news of the box, and freezes, do."""
    return message.name not in ("box_changed", "freeze")


def _decided(reading: Reading, moments: Sequence[Moment]) -> dict[str, Request]:
    found: dict[str, Request] = {}
    for raw in _raw(reading):
        try:
            request = _REQUEST.validate_python(dict(raw))
        except ValidationError:
            continue  # of a release whose requests this one doesn't know; the message itself is told
        found.setdefault(request.request_id, request)
    for moment in _last_of_each_run(moments):
        for request in moment.state.requests:
            found.setdefault(request.request_id, request)
    earliest = reading.begin - CLOCKS_APART
    # A run that continues carries old requests along; they belong to the runs before.
    return {key: request for key, request in found.items() if request.at >= earliest}


def _raw(reading: Reading) -> Iterator[Mapping[str, object]]:
    for call in reading.calls:
        if call.name == RECORDING:
            yield from objects(call.given, "requests")
    for message in reading.messages:
        if message.update and message.answer:
            yield message.answer


def _last_of_each_run(moments: Sequence[Moment]) -> Iterable[Moment]:
    return {moment.run: moment for moment in moments}.values()


def _arrival(request: Request, waiting: Iterable[Message]) -> Message | None:
    """The message that asked: the oldest that fits and had come by then."""
    for message in waiting:
        # An update's event is written with its answer: only a signal's time is that of its arrival.
        came = message.update or message.at <= request.at + CLOCKS_APART
        if came and _fits(request, message):
            return message
    return None


def _fits(request: Request, message: Message) -> bool:
    if message.update and message.answer is not None:
        return message.answer.get("request_id") == request.request_id
    kind = _KINDS.get(message.name, RequestKind.UNKNOWN)
    if kind is not request.kind:
        return False
    if request.outcome is OutcomeKind.REJECTED and "malformed" in request.detail:
        return True  # such a request has none of the message's members
    named = message.given.get("request_id")
    return (
        message.given.get("requested_by", "") == request.requested_by
        and message.given.get("reason", "") == request.reason
        and message.given.get("observed_generation") == request.observed_generation
        and (named is None or named == request.request_id)
    )


def _asked(request: Request, message: Message | None, standings: Sequence[Standing]) -> Asked:
    return Asked(
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
        served_at=_served_at(request, standings),
    )


def _served_at(request: Request, standings: Sequence[Standing]) -> datetime | None:
    wanted = _SERVED.get(request.kind)
    if wanted is None or request.outcome not in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED):
        return None
    for standing in standings:
        if standing.at >= request.at and standing.phase is wanted:
            return (
                standing.at
                if wanted is not Phase.ONLINE or standing.generation == request.generation
                else None
            )
    return None


def carried_instance(reading: Reading) -> tuple[str, int] | None:
    """The instance that the first run here took over, and its generation."""
    instance = inner(reading.carried, "box").get("instance_id")
    generation = reading.carried.get("generation")
    return (instance, generation) if isinstance(instance, str) and isinstance(generation, int) else None
