"""What someone asks who wasn't there, answered in words: who asked, which boxes lived, why so long.

Answers from the story alone, and says so where it doesn't have the answer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.replay.timeline.lines import outcome_tone, requester
from cli.replay.timeline.model import BoxLifetime, Generation, RequestSummary, Timeline, Tone
from workflows.workspace.messages import WORKFLOW_TYPE
from workflows.workspace.requests import OutcomeKind, RequestKind

MAX_LISTED_REQUESTS = 60
"""Requests that are told one by one; a storm's thousand are told by their number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A part of an answer."""

    text: str
    at: datetime | None = None
    tone: Tone = Tone.PLAIN
    share: float | None = None
    """Of the whole, where the lines of an answer add up to one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A question, the answer in a sentence, and what it is made of."""

    question: str
    short: str
    lines: tuple[Line, ...]


def answers(timeline: Timeline) -> tuple[Answer, ...]:
    """All of them, in the order in which they are asked."""
    if timeline.workflow_type != WORKFLOW_TYPE:
        return ()
    return (
        _who_asked(timeline.requests),
        _boxes(timeline),
        _tokens(timeline.generations),
        *(_why_so_long(timeline, generation) for generation in timeline.generations),
    )


def _who_asked(requests: Sequence[RequestSummary]) -> Answer:
    names = list(dict.fromkeys(requester(request) for request in requests))
    counts = [
        f"{number} {outcome}"
        for outcome in OutcomeKind
        if (number := sum(request.outcome is outcome for request in requests))
    ]
    short = "nobody asked for anything"
    if requests:
        total = "1 request" if len(requests) == 1 else f"{len(requests)} requests"
        short = f"{total} by {_join(names)}: {_join(counts)}"
    lines = [
        Line(text=_outcome_text(request), at=request.decided_at, tone=outcome_tone(request.outcome))
        for request in requests[:MAX_LISTED_REQUESTS]
    ]
    if len(requests) > MAX_LISTED_REQUESTS:
        lines.append(Line(text=f"and {len(requests) - MAX_LISTED_REQUESTS} more; the timeline has them all"))
    return Answer(question="Who asked, and what became of each request?", short=short, lines=tuple(lines))


def _outcome_text(request: RequestSummary) -> str:
    about = (
        f" about generation {request.observed_generation}" if request.observed_generation is not None else ""
    )
    what = "sent what nobody knows" if request.kind is RequestKind.UNKNOWN else f"asked to {request.kind}"
    text = f"{requester(request)} {what}{about}: {str(request.outcome).upper()} — {request.detail}"
    if request.served_at is not None:
        text += f"; served {_seconds(request.decided_at, request.served_at)} later"
    elif request.outcome in (OutcomeKind.ACCEPTED, OutcomeKind.JOINED):
        text += "; not served when this history ends, or was replaced"
    return text


def _boxes(timeline: Timeline) -> Answer:
    lives = timeline.boxes
    if not lives:
        return Answer(question="How many boxes lived when?", short="no box was launched", lines=())
    most = timeline.max_alive
    more = "never more than one at once" if most == 1 else f"up to {most} AT ONCE"
    number = "1 box" if len(lives) == 1 else f"{len(lives)} boxes"
    return Answer(
        question="How many boxes lived when?",
        short=f"{number}, {more}",
        lines=tuple(
            Line(
                text=_lifetime_text(life),
                at=life.begin,
                tone=Tone.GOOD if most == 1 else Tone.BAD,
            )
            for life in lives
        ),
    )


def _lifetime_text(lifetime: BoxLifetime) -> str:
    since = "launched" if lifetime.begin_known else "was there before this history begins"
    running = (
        f", seen running {_seconds(lifetime.begin, lifetime.running_at)} later" if lifetime.running_at else ""
    )
    if lifetime.end is None:
        end = "still there when this history ends"
    else:
        end = (
            f"gone at {clock(lifetime.end)} after {_seconds(lifetime.begin, lifetime.end)}:"
            f" {lifetime.ended_by}"
        )
    return f"{lifetime.instance_id} of generation {lifetime.generation}: {since}{running}; {end}"


def _tokens(generations: Sequence[Generation]) -> Answer:
    minted = [it for it in generations if it.registered_at is not None]
    short = "no token was minted: no box registered"
    if minted:
        times = [
            f"generation {it.number}'s at {clock(it.registered_at)}" for it in minted if it.registered_at
        ]
        short = _join(times)
    lines = tuple(line for generation in generations for line in _token(generation))
    return Answer(question="When was the token minted?", short=short, lines=lines)


def _token(generation: Generation) -> Iterator[Line]:
    number = generation.number
    if generation.opened_at is not None and number > 1:
        yield Line(
            text=f"generation {number} opened: all tokens before it were revoked", at=generation.opened_at
        )
    if generation.registered_at is None:
        yield Line(text=f"generation {number} never registered here: it got no token", tone=Tone.BAD)
        return
    after = ""
    if generation.launched_at is not None:
        after = f", {_seconds(generation.launched_at, generation.registered_at)} after its launch"
    yield Line(
        text=f"generation {number} registered for the first time{after}; the token was minted in the same "
        "transaction",
        at=generation.registered_at,
        tone=Tone.GOOD,
    )
    if generation.first_heartbeat_at is not None:
        yield Line(
            text=f"generation {number}'s first beat with it: from then on it is in use",
            at=generation.first_heartbeat_at,
            tone=Tone.GOOD,
        )
    else:
        yield Line(text=f"generation {number} never beat with it here", tone=Tone.BAD)


def _why_so_long(timeline: Timeline, generation: Generation) -> Answer:
    until = generation.online_at or generation.ended_at or timeline.end
    length = (until - generation.asked_at).total_seconds()
    parts = sorted(generation.segments, key=lambda segment: -segment.seconds)
    if generation.online_at is not None:
        short = f"{length:.3f} s from {generation.asked_by} to online"
    else:
        short = f"it did not come online; {length:.3f} s from {generation.asked_by} to the end of it here"
    if parts and length > 0:
        short += f"; the most, {parts[0].seconds:.3f} s, went into {parts[0].what}"
    return Answer(
        question=f"Why did generation {generation.number} take that long?",
        short=short,
        lines=tuple(
            Line(
                text=f"{stretch.seconds:.3f} s {stretch.what}"
                + (f" ({stretch.note})" if stretch.note else ""),
                at=stretch.begin,
                share=stretch.seconds / length if length > 0 else 0.0,
            )
            for stretch in generation.segments
        ),
    )


def clock(at: datetime) -> str:
    """The time of day, to the millisecond."""
    return f"{at:%H:%M:%S.%f}"[:-3]


def _seconds(begin: datetime, end: datetime) -> str:
    return f"{(end - begin).total_seconds():.3f} s"


def _join(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
