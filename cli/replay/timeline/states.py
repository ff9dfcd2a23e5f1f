"""Status changes over time, and the state at a point that `--at` names."""

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter, ValidationError

from cli.replay.timeline.events import STATUS_ACTIVITY, ParsedHistory
from cli.replay.timeline.model import Entry, Lane, StatusChange, Timeline, Tone, clock
from cli.replay.timeline.payloads import objects
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.enums import Phase
from workflows.workspace.state import Condition, LastError

_ERROR = TypeAdapter(LastError | None)
_CONDITION = TypeAdapter(Condition)

_TONES = {
    Phase.ONLINE: Tone.GOOD,
    Phase.DEGRADED: Tone.BAD,
    Phase.FAILED: Tone.BAD,
    Phase.STOPPED: Tone.IDLE,
    Phase.DELETED: Tone.IDLE,
}


class PointNotFound(ValueError):
    """`--at` names no point of this history; the message says which forms are valid."""


def tone_of(phase: Phase) -> Tone:
    """Whether a phase is good news."""
    return _TONES.get(phase, Tone.PLAIN)


def status_changes_of(history: ParsedHistory, snapshots: Sequence[StateSnapshot]) -> tuple[StatusChange, ...]:
    """The status changes, oldest first: from replayed states, and after a failed replay from records."""
    statuses = [_from_snapshot(snapshot) for snapshot in snapshots]
    last = max((it.at for it in statuses), default=None)
    statuses += [it for it in _recorded(history) if last is None or it.at > last]
    changes: list[StatusChange] = []
    for it in statuses:
        if not changes or _content(changes[-1]) != _content(it):
            changes.append(it)
    return tuple(changes)


def _content(change: StatusChange) -> tuple[object, ...]:
    conditions = tuple((it.type, it.status, it.reason) for it in change.conditions)
    return change.phase, change.generation, change.last_error, conditions


def _from_snapshot(snapshot: StateSnapshot) -> StatusChange:
    return StatusChange(
        at=snapshot.at,
        phase=snapshot.phase,
        generation=snapshot.generation,
        conditions=snapshot.conditions,
        last_error=snapshot.last_error,
    )


def _recorded(history: ParsedHistory) -> Iterator[StatusChange]:
    for call in history.calls:
        if call.name == STATUS_ACTIVITY:
            change = _from_record(call.arguments, call.scheduled_at)
            if change is not None:
                yield change


def _from_record(arguments: dict[str, object], at: datetime) -> StatusChange | None:
    try:
        return StatusChange(
            at=at,
            phase=Phase(str(arguments.get("phase"))),
            generation=int(str(arguments.get("generation"))),
            conditions=tuple(_CONDITION.validate_python(it) for it in objects(arguments, "conditions")),
            last_error=_ERROR.validate_python(arguments.get("last_error")),
        )
    except (ValueError, ValidationError):
        return None  # written by a release with other phases or conditions


def status_entries(changes: Sequence[StatusChange]) -> Iterator[Entry]:
    """An entry for each change of phase, generation or error."""
    before: StatusChange | None = None
    for change in changes:
        error, old = change.last_error, before.last_error if before else None
        if before is None or (before.phase, before.generation) != (change.phase, change.generation):
            yield Entry(
                at=change.at,
                lane=Lane.STATUS,
                text=f"{change.phase}, generation {change.generation}",
                tone=tone_of(change.phase),
                details=tuple((it.type, f"{it.status}: {it.message}") for it in change.conditions),
            )
        if error is not None and (old is None or (old.code, old.count) != (error.code, error.count)):
            times = f", {error.count} times so far" if error.count > 1 else ""
            yield Entry(
                at=change.at,
                lane=Lane.ERROR,
                text=f"{error.code} in {error.phase}{times}: {error.message}",
                tone=Tone.BAD,
                details=(
                    ("what to do", error.hint),
                    ("retried automatically", "yes" if error.retryable else "no"),
                ),
            )
        elif error is None and old is not None:
            text = f"{old.code} in {old.phase} is resolved"
            yield Entry(at=change.at, lane=Lane.ERROR, text=text, tone=Tone.GOOD)
        before = change


def snapshot_at(timeline: Timeline, text: str) -> StateSnapshot:
    """The state at the point that `--at` names: an event (`57`, or `2:57` of the second run), or a time.

    Raises `PointNotFound`.
    """
    if not timeline.snapshots:
        raise PointNotFound(
            "the replay produced no state: a delegation has none, and a failed replay neither"
        )
    if found := re.fullmatch(r"(?:(\d+):)?(\d+)", text):
        run = int(found[1]) if found[1] else _only_run(timeline)
        event = int(found[2])
        passed = [it for it in timeline.snapshots if it.run == run and it.event <= event]
        if not passed:
            raise PointNotFound(f"run {run} has no state at event {event}; its first workflow task is later")
        return passed[-1]
    when = _time(timeline, text)
    passed = [it for it in timeline.snapshots if it.at <= when]
    if not passed:
        raise PointNotFound(
            f"there is no state at {when:%Y-%m-%d %H:%M:%S}; the history begins at {clock(timeline.begin)}"
        )
    return passed[-1]


def snapshot_after(entry: Entry, snapshots: Sequence[StateSnapshot]) -> StateSnapshot | None:
    """The state after an entry's event was processed; without an event, the state at its time."""
    if entry.event is not None and entry.run is not None:
        index = bisect_left(snapshots, (entry.run, entry.event), key=lambda it: (it.run, it.event))
        return snapshots[min(index, len(snapshots) - 1)] if snapshots else None
    index = bisect_right(snapshots, entry.at, key=lambda it: it.at)
    return snapshots[index - 1] if index else None


def _only_run(timeline: Timeline) -> int:
    runs = {snapshot.run for snapshot in timeline.snapshots}
    if len(runs) > 1:
        raise PointNotFound(f"there are {len(runs)} runs; name an event as RUN:EVENT")
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
        f"invalid --at value {text!r}: give an event (57, or RUN:EVENT), a time of day, a date and time, "
        "or +SECONDS since the beginning"
    )


def lines(snapshot: StateSnapshot) -> Iterator[str]:
    """The state as text, followed by the whole state as JSON."""
    yield (
        f"after event {snapshot.event} of run {snapshot.run}, at {snapshot.at:%Y-%m-%d} "
        f"{clock(snapshot.at)} UTC: {snapshot.phase}, generation {snapshot.generation}"
    )
    for name, value in snapshot.describe():
        yield f"  {name:17} {value}"
    yield ""
    yield json.dumps(snapshot.as_json(), indent=2)
