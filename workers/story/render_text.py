"""The story for a terminal: the verdict, the answers, the timeline, in absolute and relative time.

Builds text; it writes nothing anywhere.
"""

from collections.abc import Iterator
from datetime import datetime

from workers.story.answers import answers, clock
from workers.story.model import Story, Verdict


def render(story: Story) -> str:
    """Everything."""
    return "\n".join([*verdicts(story), *_answers(story), "", *_timeline(story)]) + "\n"


def verdicts(story: Story) -> Iterator[str]:
    """A line for each run: whether the present code would do the same."""
    for verdict in story.verdicts:
        which = f"{story.workspace_id}, run {verdict.run} of {len(story.verdicts)}"
        yield f"{which}: {verdict.events} events, {verdict_text(verdict)}"


def verdict_text(verdict: Verdict) -> str:
    """In words."""
    if verdict.problem is None:
        return "deterministic under this code"
    return f"NOT DETERMINISTIC: {verdict.problem}"


def _answers(story: Story) -> Iterator[str]:
    for answer in answers(story):
        yield ""
        yield f"{answer.question} {answer.short[:1].upper()}{answer.short[1:]}."
        for line in answer.lines:
            at = clock(line.at) if line.at is not None else " " * 12
            share = f"{line.share:4.0%} " if line.share is not None else ""
            yield f"  {at}  {share}{line.text}"


def _timeline(story: Story) -> Iterator[str]:
    if not story.entries:
        yield "nothing happened"
        return
    start = story.entries[0].at
    yield f"{start:%Y-%m-%d} (UTC; what boxes did by PostgreSQL's clock, all else by Temporal's)"
    if story.beside:
        yield story.beside
    day = start.date()
    for entry in story.entries:
        if entry.at.date() != day:
            day = entry.at.date()
            yield f"{day}"
        event = "" if entry.event is None else _event(story, entry.run, entry.event)
        yield f"{clock(entry.at)}  {_since(start, entry.at)} {event:>6}  {entry.lane:8} {entry.text}"


def _event(story: Story, run: int | None, event: int) -> str:
    return f"#{event}" if len(story.verdicts) < 2 else f"#{run}:{event}"


def _since(start: datetime, at: datetime) -> str:
    return f"+{(at - start).total_seconds():10.3f}s"
