"""The state at a point: finding the point, and showing all that the workflow remembered then.

Takes the states that the replay saw; where it saw none, there is none to show.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from workers.story.answers import clock
from workers.story.model import Entry, Moment, Story
from workflows import conditions, display
from workflows.state import State

STATE = TypeAdapter(State)


class NoSuchPoint(ValueError):
    """The text names no point of this history; says what does."""


def at_point(story: Story, text: str) -> Moment:
    """The moment that `--at` names: an event (`57`, or `2:57` of the second run), or a time.

    Raises `NoSuchPoint`.
    """
    if not story.moments:
        raise NoSuchPoint("the replay saw no state: of a delegation there is none, and none after a failure")
    if found := re.fullmatch(r"(?:(\d+):)?(\d+)", text):
        run = int(found[1]) if found[1] else _only_run(story)
        reached = [it for it in story.moments if (it.run, it.event) <= (run, int(found[2]))]
        in_run = [it for it in reached if it.run == run]
        if not in_run:
            raise NoSuchPoint(f"run {run} had done nothing by event {found[2]}; its first task is later")
        return in_run[-1]
    when = _time(story, text)
    passed = [it for it in story.moments if it.at <= when]
    if not passed:
        raise NoSuchPoint(
            f"nothing had happened by {when:%Y-%m-%d %H:%M:%S}; it begins at {clock(story.begin)}"
        )
    return passed[-1]


def after(entry: Entry, moments: Sequence[Moment]) -> Moment | None:
    """The state once a line of the timeline was worked through, or as it was at the time."""
    if entry.event is not None and entry.run is not None:
        index = bisect_left(moments, (entry.run, entry.event), key=lambda it: (it.run, it.event))
        return moments[min(index, len(moments) - 1)] if moments else None
    index = bisect_right(moments, entry.at, key=lambda it: it.at)
    return moments[index - 1] if index else None


def _only_run(story: Story) -> int:
    runs = {moment.run for moment in story.moments}
    if len(runs) > 1:
        raise NoSuchPoint(f"there are {len(runs)} runs; name one of their events as RUN:EVENT")
    return next(iter(runs))


def _time(story: Story, text: str) -> datetime:
    if found := re.fullmatch(r"\+(\d{1,10}(?:\.\d{1,6})?)s?", text):
        return story.entries[0].at + timedelta(seconds=float(found[1]))
    days = (
        story.begin + timedelta(days=day) for day in range((story.end.date() - story.begin.date()).days + 1)
    )
    for candidate in (text, *(f"{day:%Y-%m-%d}T{text}" for day in days)):
        try:
            when = datetime.fromisoformat(candidate)
        except ValueError:
            continue
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        if when >= story.begin:
            return when
    raise NoSuchPoint(
        f"{text!r} is no point: give an event (57, or RUN:EVENT), a time of day, a time with its date, "
        "or +SECONDS since the beginning"
    )


def lines(moment: Moment) -> Iterator[str]:
    """The state in words, then all of it as it is carried."""
    state = moment.state
    yield (
        f"after event {moment.event} of run {moment.run}, at {moment.at:%Y-%m-%d} {clock(moment.at)} UTC: "
        f"{conditions.phase(state)}, generation {state.generation}"
    )
    for name, value in facts(moment):
        yield f"  {name:17} {value}"
    yield ""
    yield json.dumps(STATE.dump_python(state, mode="json"), indent=2)


def facts(moment: Moment) -> Iterator[tuple[str, str]]:
    """What is told of a state in words."""
    state = moment.state
    yield "now", display.waiting_for(state, moment.running)
    yield "instance", f"{state.box.instance_id or 'none'}, {state.box.private_ip or 'no address'}"
    if state.flight is not None:
        waiting = ", ".join(name or "somebody unnamed" for name in state.flight.waiting) or "nobody"
        yield (
            "in flight",
            f"generation {state.flight.generation} since {clock(state.flight.since)} for {waiting}",
        )
    for error in state.errors:
        yield "error", f"{error.code} in {error.phase}, {error.count}×: {error.message}"
    for it in state.conditions:
        yield str(it.type), f"{it.status}: {it.message}"
