"""Answers the usual questions about an incident from the timeline: requests, boxes, tokens, durations."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.replay.timeline.entries import outcome_tone
from cli.replay.timeline.model import (
    BoxLifetime,
    Generation,
    RequestSummary,
    Timeline,
    Tone,
    clock,
    requester,
)
from workflows.shared.names import WORKFLOW_TYPE
from workflows.workspace.requests import OutcomeKind, RequestKind

MAX_LISTED_REQUESTS = 60
"""Requests that are listed one by one; of further ones only the number is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A detail of an answer."""

    text: str
    at: datetime | None = None
    tone: Tone = Tone.PLAIN
    share: float | None = None
    """Its share of the total, if the lines of the answer add up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question, a short answer, and its details."""

    question: str
    short: str
    lines: tuple[Line, ...]

    @property
    def sentence(self) -> str:
        """The short answer as a sentence."""
        return f"{self.short[:1].upper()}{self.short[1:]}."


def answers(timeline: Timeline) -> tuple[Answer, ...]:
    """All answers; none for workflows other than WorkspaceWorkflow."""
    if timeline.workflow_type != WORKFLOW_TYPE:
        return ()
    return (
        _requests(timeline.requests),
        _boxes(timeline),
        _tokens(timeline.generations),
        *(_duration(timeline, generation) for generation in timeline.generations),
    )


def _requests(requests: Sequence[RequestSummary]) -> Answer:
    names = list(dict.fromkeys(requester(request) for request in requests))
    counts = [
        f"{number} {outcome}"
        for outcome in OutcomeKind
        if (number := sum(request.outcome is outcome for request in requests))
    ]
    short = "no requests"
    if requests:
        short = f"{_count(len(requests), 'request')} by {_join(names)}: {_join(counts)}"
    lines = [
        Line(text=_request_text(request), at=request.decided_at, tone=outcome_tone(request.outcome))
        for request in requests[:MAX_LISTED_REQUESTS]
    ]
    if (more := len(requests) - MAX_LISTED_REQUESTS) > 0:
        lines.append(Line(text=f"and {more} more; the timeline lists all of them"))
    return Answer(question="Who requested what, with which outcome?", short=short, lines=tuple(lines))


def _request_text(request: RequestSummary) -> str:
    observed = request.observed_generation
    about = f" of generation {observed}" if observed is not None else ""
    what = f"requested {request.kind}{about}"
    if request.kind is RequestKind.UNKNOWN:
        what = "sent an unknown request"
    text = f"{requester(request)} {what}: {str(request.outcome).upper()} — {request.detail}"
    if request.served_at is not None:
        text += f"; served {_seconds(request.decided_at, request.served_at)} later"
    elif request.outcome in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED):
        text += "; superseded, or not served by the end of this history"
    return text


def _boxes(timeline: Timeline) -> Answer:
    question, boxes, most = "Which boxes ran when?", timeline.boxes, timeline.max_alive
    if not boxes:
        return Answer(question=question, short="no box was launched", lines=())
    more = "never more than one at once" if most == 1 else f"up to {most} AT ONCE"
    tone = Tone.GOOD if most == 1 else Tone.BAD
    return Answer(
        question=question,
        short=f"{len(boxes)} {'box' if len(boxes) == 1 else 'boxes'}, {more}",
        lines=tuple(Line(text=_lifetime_text(it), at=it.begin, tone=tone) for it in boxes),
    )


def _lifetime_text(box: BoxLifetime) -> str:
    text = f"{box.instance_id} of generation {box.generation}: "
    text += "launched" if box.begin_known else "launched before this history begins"
    if box.running_at:
        text += f", running {_seconds(box.begin, box.running_at)} later"
    if box.end is None:
        return f"{text}; still there when this history ends"
    return f"{text}; terminated at {clock(box.end)} after {_seconds(box.begin, box.end)}: {box.ended_by}"


def _tokens(generations: Sequence[Generation]) -> Answer:
    minted = [
        f"generation {it.number}'s at {clock(it.registered_at)}" for it in generations if it.registered_at
    ]
    return Answer(
        question="When was the token minted?",
        short=_join(minted) if minted else "no token was minted: no box registered",
        lines=tuple(line for generation in generations for line in _token(generation)),
    )


def _token(generation: Generation) -> Iterator[Line]:
    name = f"generation {generation.number}"
    if generation.opened_at is not None and generation.number > 1:
        yield Line(text=f"{name} opened: all earlier tokens were revoked", at=generation.opened_at)
    if generation.registered_at is None:
        yield Line(text=f"{name} has no registration in this history: it got no token", tone=Tone.BAD)
        return
    after = ""
    if generation.launched_at is not None:
        after = f" {_seconds(generation.launched_at, generation.registered_at)} after its launch"
    yield Line(
        text=f"{name} first registered{after}; the same transaction minted its token",
        at=generation.registered_at,
        tone=Tone.GOOD,
    )
    if generation.first_heartbeat_at is not None:
        text = f"{name} sent its first heartbeat with the token"
        yield Line(text=text, at=generation.first_heartbeat_at, tone=Tone.GOOD)
    else:
        yield Line(text=f"{name} has no heartbeat with the token in this history", tone=Tone.BAD)


def _duration(timeline: Timeline, generation: Generation) -> Answer:
    until = generation.online_at or generation.ended_at or timeline.end
    length = (until - generation.asked_at).total_seconds()
    short = f"{length:.3f} s from {generation.asked_by} to online"
    if generation.online_at is None:
        short = f"not online {length:.3f} s after {generation.asked_by}, when it or this history ended"
    longest = max(generation.segments, key=lambda segment: segment.seconds, default=None)
    if longest and length > 0:
        short += f"; longest step: {longest.seconds:.3f} s, {longest.what}"
    return Answer(
        question=f"Why did generation {generation.number} take that long?",
        short=short,
        lines=tuple(
            Line(
                text=f"{it.seconds:.3f} s {it.what}" + (f" ({it.note})" if it.note else ""),
                at=it.begin,
                share=it.seconds / length if length > 0 else 0.0,
            )
            for it in generation.segments
        ),
    )


def _seconds(begin: datetime, end: datetime) -> str:
    return f"{(end - begin).total_seconds():.3f} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _join(items: Sequence[str]) -> str:
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)
