"""The state at a point: finding the point, and showing all that the workflow remembered then.

Takes the states that the replay saw; where it saw none, there is none to show.
"""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from cli.replay.timeline.answers import clock
from cli.replay.timeline.model import Entry, Timeline
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace import conditions, status
from workflows.workspace.state import State

STATE = TypeAdapter(State)


class PointNotFound(ValueError):
    """The text names no point of this history; says what does."""


def snapshot_at(timeline: Timeline, text: str) -> StateSnapshot:
    """The moment that `--at` names: an event (`57`, or `2:57` of the second run), or a time.

    Raises `PointNotFound`.
    """
    if not timeline.snapshots:
        raise PointNotFound(
            "the replay saw no state: of a delegation there is none, and none after a failure"
        )
    if found := re.fullmatch(r"(?:(\d+):)?(\d+)", text):
        run = int(found[1]) if found[1] else _only_run(timeline)
        reached = [it for it in timeline.snapshots if (it.run, it.event) <= (run, int(found[2]))]
        in_run = [it for it in reached if it.run == run]
        if not in_run:
            raise PointNotFound(f"run {run} had done nothing by event {found[2]}; its first task is later")
        return in_run[-1]
    when = _time(timeline, text)
    passed = [it for it in timeline.snapshots if it.at <= when]
    if not passed:
        raise PointNotFound(
            f"nothing had happened by {when:%Y-%m-%d %H:%M:%S}; it begins at {clock(timeline.begin)}"
        )
    return passed[-1]


def snapshot_after(entry: Entry, snapshots: Sequence[StateSnapshot]) -> StateSnapshot | None:
    """The state once a line of the timeline was worked through, or as it was at the time."""
    if entry.event is not None and entry.run is not None:
        index = bisect_left(snapshots, (entry.run, entry.event), key=lambda it: (it.run, it.event))
        return snapshots[min(index, len(snapshots) - 1)] if snapshots else None
    index = bisect_right(snapshots, entry.at, key=lambda it: it.at)
    return snapshots[index - 1] if index else None


def _only_run(timeline: Timeline) -> int:
    runs = {moment.run for moment in timeline.snapshots}
    if len(runs) > 1:
        raise PointNotFound(f"there are {len(runs)} runs; name one of their events as RUN:EVENT")
    return next(iter(runs))


def _time(timeline: Timeline, text: str) -> datetime:
    if found := re.fullmatch(r"\+(\d{1,10}(?:\.\d{1,6})?)s?", text):
        return timeline.entries[0].at + timedelta(seconds=float(found[1]))
    days = (
        timeline.begin + timedelta(days=day)
        for day in range((timeline.end.date() - timeline.begin.date()).days + 1)
    )
    for candidate in (text, *(f"{day:%Y-%m-%d}T{text}" for day in days)):
        try:
            when = datetime.fromisoformat(candidate)
        except ValueError:
            continue
        when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
        if when >= timeline.begin:
            return when
    raise PointNotFound(
        f"{text!r} is no point: give an event (57, or RUN:EVENT), a time of day, a time with its date, "
        "or +SECONDS since the beginning"
    )


def lines(snapshot: StateSnapshot) -> Iterator[str]:
    """The state in words, then all of it as it is carried."""
    state = snapshot.state
    yield (
        f"after event {snapshot.event} of run {snapshot.run}, at {snapshot.at:%Y-%m-%d}"
        f" {clock(snapshot.at)} UTC: "
        f"{conditions.phase(state)}, generation {state.generation}"
    )
    for name, value in describe_state(snapshot):
        yield f"  {name:17} {value}"
    yield ""
    yield json.dumps(STATE.dump_python(state, mode="json"), indent=2)


def describe_state(snapshot: StateSnapshot) -> Iterator[tuple[str, str]]:
    """What is told of a state in words."""
    state = snapshot.state
    yield "now", status.waiting_for(state, snapshot.running)
    yield "instance", f"{state.box.instance_id or 'none'}, {state.box.private_ip or 'no address'}"
    if state.provisioning is not None:
        waiting = ", ".join(name or "somebody unnamed" for name in state.provisioning.requesters) or "nobody"
        yield (
            "in flight",
            f"generation {state.provisioning.generation} since {clock(state.provisioning.since)} for"
            f" {waiting}",
        )
    for error in state.errors:
        yield "error", f"{error.code} in {error.phase}, {error.count}×: {error.message}"
    for it in state.conditions:
        yield str(it.type), f"{it.status}: {it.message}"
