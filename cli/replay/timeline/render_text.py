"""Renders the timeline as text: replay verdicts, answers, and entries with absolute and relative times."""

from collections.abc import Iterator
from datetime import datetime

from cli.replay.timeline.answers import answers
from cli.replay.timeline.model import ReplayVerdict, Timeline, clock


def render(timeline: Timeline) -> str:
    """The whole text."""
    return "\n".join([*verdicts(timeline), *_answers(timeline), "", *_timeline(timeline)]) + "\n"


def verdicts(timeline: Timeline) -> Iterator[str]:
    """A line for each run: whether it is deterministic with the current code."""
    for verdict in timeline.verdicts:
        which = f"{timeline.workspace_id}, run {verdict.run} of {len(timeline.verdicts)}"
        yield f"{which}: {verdict.events} events, {verdict_text(verdict)}"


def verdict_text(verdict: ReplayVerdict) -> str:
    """The verdict as text."""
    if verdict.problem is None:
        return "deterministic under this code"
    return f"NOT DETERMINISTIC: {verdict.problem}"


def _answers(timeline: Timeline) -> Iterator[str]:
    for answer in answers(timeline):
        yield ""
        yield f"{answer.question} {answer.sentence}"
        for line in answer.lines:
            at = clock(line.at) if line.at is not None else " " * 12
            share = f"{line.share:4.0%} " if line.share is not None else ""
            yield f"  {at}  {share}{line.text}"


def _timeline(timeline: Timeline) -> Iterator[str]:
    if not timeline.entries:
        yield "the history has no entries"
        return
    start = timeline.entries[0].at
    yield f"{start:%Y-%m-%d} (UTC; events of boxes by PostgreSQL's clock, all others by Temporal's)"
    if timeline.database_note:
        yield timeline.database_note
    day = start.date()
    for entry in timeline.entries:
        if entry.at.date() != day:
            day = entry.at.date()
            yield f"{day}"
        event = "" if entry.event is None else _event(timeline, entry.run, entry.event)
        yield f"{clock(entry.at)}  {_since(start, entry.at)} {event:>6}  {entry.lane:8} {entry.text}"


def _event(timeline: Timeline, run: int | None, event: int) -> str:
    return f"#{event}" if len(timeline.verdicts) < 2 else f"#{run}:{event}"


def _since(start: datetime, at: datetime) -> str:
    return f"+{(at - start).total_seconds():10.3f}s"
