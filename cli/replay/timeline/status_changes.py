"""What the workspace was, and when: from replayed states, or from what was recorded where there are none.

A standing lasts until the next one; two in a row that say the same are one.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from cli.replay.timeline.events import STATUS_ACTIVITY, ParsedHistory
from cli.replay.timeline.model import Entry, Lane, StatusChange, Tone
from cli.replay.timeline.payloads import objects
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace import conditions
from workflows.workspace.state import Condition, LastError, Phase

_ERROR = TypeAdapter(LastError | None)
_CONDITION = TypeAdapter(Condition)

_TONES = {
    Phase.ONLINE: Tone.GOOD,
    Phase.DEGRADED: Tone.BAD,
    Phase.FAILED: Tone.BAD,
    Phase.STOPPED: Tone.IDLE,
    Phase.DELETED: Tone.IDLE,
}


def status_changes_of(history: ParsedHistory, snapshots: Sequence[StateSnapshot]) -> tuple[StatusChange, ...]:
    """Oldest first. Where the replay broke off, the records of later events carry on."""
    told = [_from_snapshot(moment) for moment in snapshots]
    last = max((standing.at for standing in told), default=None)
    told += [it for it in _recorded(history) if last is None or it.at > last]
    found: list[StatusChange] = []
    for standing in told:
        if not found or _content(found[-1]) != _content(standing):
            found.append(standing)
    return tuple(found)


def tone_of(phase: Phase) -> Tone:
    """Whether a phase is good news."""
    return _TONES.get(phase, Tone.PLAIN)


def status_entries(status_changes: Sequence[StatusChange]) -> Iterator[Entry]:
    """A line for each change of phase, generation or error."""
    before: StatusChange | None = None
    for standing in status_changes:
        error, old = standing.last_error, before.last_error if before else None
        if before is None or (before.phase, before.generation) != (standing.phase, standing.generation):
            yield Entry(
                at=standing.at,
                lane=Lane.STATUS,
                text=f"{standing.phase}, generation {standing.generation}",
                tone=tone_of(standing.phase),
                details=tuple((it.type, f"{it.status}: {it.message}") for it in standing.conditions),
            )
        if error is not None and (old is None or (old.code, old.count) != (error.code, error.count)):
            times = f", {error.count} times now" if error.count > 1 else ""
            yield Entry(
                at=standing.at,
                lane=Lane.ERROR,
                text=f"{error.code} in {error.phase}{times}: {error.message}",
                tone=Tone.BAD,
                details=(
                    ("what to do", error.hint),
                    ("tried again by itself", "yes" if error.retryable else "no"),
                ),
            )
        elif error is None and old is not None:
            yield Entry(
                at=standing.at, lane=Lane.ERROR, text=f"{old.code} in {old.phase} is over", tone=Tone.GOOD
            )
        before = standing


def _content(change: StatusChange) -> tuple[object, ...]:
    return (
        change.phase,
        change.generation,
        change.last_error,
        tuple((it.type, it.status, it.reason) for it in change.conditions),
    )


def _from_snapshot(snapshot: StateSnapshot) -> StatusChange:
    state = snapshot.state
    return StatusChange(
        at=snapshot.at,
        phase=conditions.phase(state),
        generation=state.generation,
        conditions=state.conditions,
        last_error=state.last_error,
    )


def _recorded(history: ParsedHistory) -> Iterator[StatusChange]:
    for call in history.calls:
        if call.name == STATUS_ACTIVITY:
            standing = _from_record(call.arguments, call.scheduled_at)
            if standing is not None:
                yield standing


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
        return None  # written by a release whose words this one does not know
