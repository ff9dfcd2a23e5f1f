"""What the workspace was, and when: from replayed states, or from what was recorded where there are none.

A standing lasts until the next one; two in a row that say the same are one.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from workers.story.model import Entry, Lane, Moment, Standing, Tone
from workers.story.payloads import objects
from workers.story.reading import RECORDING, Reading
from workflows import conditions
from workflows.state import Condition, LastError, Phase

_ERROR = TypeAdapter(LastError | None)
_CONDITION = TypeAdapter(Condition)

_TONES = {
    Phase.ONLINE: Tone.GOOD,
    Phase.DEGRADED: Tone.BAD,
    Phase.FAILED: Tone.BAD,
    Phase.STOPPED: Tone.IDLE,
    Phase.DELETED: Tone.IDLE,
}


def standings_of(reading: Reading, moments: Sequence[Moment]) -> tuple[Standing, ...]:
    """Oldest first. Where the replay broke off, the records of later events carry on."""
    told = [_of(moment) for moment in moments]
    last = max((standing.at for standing in told), default=None)
    told += [it for it in _recorded(reading) if last is None or it.at > last]
    found: list[Standing] = []
    for standing in told:
        if not found or _saying(found[-1]) != _saying(standing):
            found.append(standing)
    return tuple(found)


def tone_of(phase: Phase) -> Tone:
    """Whether a phase is good news."""
    return _TONES.get(phase, Tone.PLAIN)


def status_entries(standings: Sequence[Standing]) -> Iterator[Entry]:
    """A line for each change of phase, generation or error."""
    before: Standing | None = None
    for standing in standings:
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


def _saying(standing: Standing) -> tuple[object, ...]:
    return (
        standing.phase,
        standing.generation,
        standing.last_error,
        tuple((it.type, it.status, it.reason) for it in standing.conditions),
    )


def _of(moment: Moment) -> Standing:
    state = moment.state
    return Standing(
        at=moment.at,
        phase=conditions.phase(state),
        generation=state.generation,
        conditions=state.conditions,
        last_error=state.last_error,
    )


def _recorded(reading: Reading) -> Iterator[Standing]:
    for call in reading.calls:
        if call.name == RECORDING:
            standing = _standing(call.given, call.scheduled_at)
            if standing is not None:
                yield standing


def _standing(given: dict[str, object], at: datetime) -> Standing | None:
    try:
        return Standing(
            at=at,
            phase=Phase(str(given.get("phase"))),
            generation=int(str(given.get("generation"))),
            conditions=tuple(_CONDITION.validate_python(it) for it in objects(given, "conditions")),
            last_error=_ERROR.validate_python(given.get("last_error")),
        )
    except (ValueError, ValidationError):
        return None  # written by a release whose words this one does not know
