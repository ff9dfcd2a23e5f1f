"""A fleet roll: many workspaces recreated, a bounded share at a time. Standard library only.

Says who is next, when to pause, what became of each, and when it is over. It neither asks nor looks: what the
record says comes in as values, and time is an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import floor

from workflows.state import Intent, Phase, Step

MOST_TRIES = 3
"""A roll's recreate may join one that was on its way before, and whose box has the old image: it asks again.
Whoever outruns it three times is doing something that a human should see."""

LONGEST_DETAIL = 300

_MISSED = (Step.AWAIT_REGISTRATION, Step.CANARY, Step.PROCESS)
"""What a box that came up and did not get online is given up for."""


class RollState(StrEnum):
    """How far the roll is."""

    PLANNED = "planned"
    """The plan stands; `proceed` begins it."""
    ROLLING = "rolling"
    PAUSED = "paused"
    """Nothing new begins; who is on the way is waited for."""
    ABORTED = "aborted"
    """As paused, and for good."""


class Outcome(StrEnum):
    """What became of a member."""

    WAITING = "waiting"
    """Its turn has not come: nothing of it was touched."""
    IN_FLIGHT = "in_flight"
    RECREATED = "recreated"
    UNNEEDED = "unneeded"
    """It was online with the image already."""
    SKIPPED = "skipped"
    """It has no box by intent, or is gone."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A workspace of the roll."""

    workspace_id: str
    outcome: Outcome = Outcome.WAITING
    generation: int = 0
    """The one that is waited for, or that it came to; 0 before its turn."""
    asked: int = 0
    """How often its recreation was asked for: each time under a request ID of its own."""
    tries: int = 0
    """The same since it was begun, or since a human had it retried."""
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the record says of a member."""

    workspace_id: str
    generation: int
    """The newest one that was opened."""
    intent: Intent
    deleted: bool
    phase: Phase
    available: bool
    """Online, and nothing speaks against it."""
    image_id: str | None
    """What the box of that generation was launched from."""
    error: str = ""
    """The last error, in words."""
    error_phase: Step | None = None
    error_generation: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """One look at all members at once."""

    seen: tuple[Seen, ...]
    """Those that were asked about: the ones that are followed."""
    down: frozenset[str]
    """Members that are not available, whoever caused it; of those in flight or not."""
    held: str | None = None
    """Why nothing may begin now, as far as the fleet is concerned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """All that is remembered of a roll."""

    members: tuple[Member, ...]
    """In the order of their turns."""
    allowed: int
    """So many may be unavailable at once, whoever caused it."""
    max_failures: int
    """So many failures since it was begun or resumed pause it; until one came online, one does."""
    image_id: str | None = None
    deadline: timedelta = timedelta(minutes=30)
    state: RollState = RollState.PLANNED
    why: str = ""
    """Of that state, in words."""
    failures: int = 0
    """Since it was begun or resumed."""
    proven: bool = False
    """A member came online by this roll: the canary is through."""
    down: frozenset[str] = field(default_factory=frozenset)
    """As the last survey had it."""
    held: str | None = None


def allowed(members: int, max_unavailable: float) -> int:
    """A share below 1, else a number; at least one, or nothing could ever be rolled."""
    if max_unavailable >= 1:
        return int(max_unavailable)
    return max(1, floor(members * max_unavailable + 1e-9))  # 0.1 * 30 is less than 3 in binary


def flying(roll: Roll) -> tuple[Member, ...]:
    """Those on the way."""
    return tuple(member for member in roll.members if member.outcome is Outcome.IN_FLIGHT)


def followed(roll: Roll) -> tuple[Member, ...]:
    """Those whose records are news: on the way, or failed, for a box may come late."""
    return tuple(member for member in roll.members if member.outcome in (Outcome.IN_FLIGHT, Outcome.FAILED))


def count(roll: Roll, outcome: Outcome) -> int:
    """How many members have that outcome."""
    return sum(member.outcome is outcome for member in roll.members)


def unavailable(roll: Roll) -> frozenset[str]:
    """Members that are not available: one in flight is none, whatever its record still says."""
    return roll.down | {member.workspace_id for member in flying(roll)}


def is_over(roll: Roll) -> bool:
    """Whether nothing is left to be done or waited for."""
    if flying(roll):
        return False
    return roll.state is RollState.ABORTED or not count(roll, Outcome.WAITING)


def next_turns(roll: Roll) -> tuple[Member, ...]:
    """Whose turn it is now, judged by the last survey."""
    if roll.state is not RollState.ROLLING or roll.held is not None:
        return ()
    taken = len(unavailable(roll))
    waiting = [member for member in roll.members if member.outcome is Outcome.WAITING]
    free = [member for member in waiting if member.workspace_id in roll.down]
    # Who is down already can only gain, and takes no room. The canary had better be a healthy one: its
    # failure should say something about the roll.
    costly = [member for member in waiting if member.workspace_id not in roll.down]
    costly = costly[: max(0, roll.allowed - taken)]
    ordered = [*free, *costly] if roll.proven else [*costly, *free]
    return tuple(ordered[: max(0, _slots(roll))])


def wants_room(roll: Roll) -> bool:
    """Whether more would begin if there were room, and nothing held the fleet."""
    return roll.state is RollState.ROLLING and bool(count(roll, Outcome.WAITING)) and _slots(roll) > 0


def _slots(roll: Roll) -> int:
    """How many more may be on the way at once."""
    return (roll.allowed if roll.proven else 1) - len(flying(roll))


def begun(roll: Roll, turns: Iterable[Member], at: datetime) -> Roll:
    """Put what became of the requests on the members: in flight, or settled at once."""
    by_id = {
        turn.workspace_id: replace(turn, since=at, detail=turn.detail[:LONGEST_DETAIL]) for turn in turns
    }
    members = tuple(by_id.get(member.workspace_id, member) for member in roll.members)
    return _judged(replace(roll, members=members), before=roll, at=at)


def surveyed(roll: Roll, survey: Survey, at: datetime) -> Roll:
    """Take a look at the record in."""
    by_id = {seen.workspace_id: seen for seen in survey.seen}
    members = tuple(_followed_up(member, by_id.get(member.workspace_id), roll, at) for member in roll.members)
    return _judged(replace(roll, members=members, down=survey.down, held=survey.held), before=roll, at=at)


def _followed_up(member: Member, seen: Seen | None, roll: Roll, at: datetime) -> Member:
    if member.outcome is Outcome.IN_FLIGHT:
        return settled(member, seen, roll, at)
    # Before its turn was accepted no generation is its own, and nothing that comes online is.
    if member.outcome is Outcome.FAILED and member.generation and seen is not None:
        late = settled(member, seen, roll, at)
        if late.outcome is Outcome.RECREATED:
            return replace(late, detail="it came online late")
    return member


def settled(member: Member, seen: Seen | None, roll: Roll, at: datetime) -> Member:
    """What became of a member in flight; itself if it still is."""
    if seen is None or seen.deleted or seen.intent is not Intent.RUN:
        return replace(member, outcome=Outcome.SKIPPED, detail="stopped or deleted meanwhile")
    if seen.generation >= member.generation and seen.available:
        if roll.image_id is None or seen.image_id == roll.image_id:
            return replace(member, outcome=Outcome.RECREATED, generation=seen.generation, detail="")
        return _outrun(member, seen)
    if why := _lost(member, seen):
        return replace(member, outcome=Outcome.FAILED, detail=why[:LONGEST_DETAIL])
    if member.since is not None and at >= member.since + roll.deadline:
        minutes = roll.deadline.total_seconds() / 60
        why = f"not online after {minutes:g} min: {seen.phase}" + (f"; {seen.error}" if seen.error else "")
        return replace(member, outcome=Outcome.FAILED, detail=why[:LONGEST_DETAIL])
    return member


def proceeded(roll: Roll) -> tuple[Roll, str | None]:
    """Begin what was planned; the second value says why not."""
    if roll.state is not RollState.PLANNED:
        return roll, f"the roll is {roll.state}: there is nothing to proceed with"
    return replace(roll, state=RollState.ROLLING, why=""), None


def paused(roll: Roll, why: str) -> tuple[Roll, str | None]:
    """Begin nothing new."""
    if roll.state is not RollState.ROLLING:
        return roll, f"the roll is {roll.state}: there is nothing to pause"
    return replace(roll, state=RollState.PAUSED, why=why), None


def resumed(roll: Roll) -> tuple[Roll, str | None]:
    """Go on; failures are counted anew."""
    if roll.state is not RollState.PAUSED:
        return roll, f"the roll is {roll.state}: there is nothing to resume"
    return replace(roll, state=RollState.ROLLING, why="", failures=0), None


def aborted(roll: Roll, why: str) -> tuple[Roll, str | None]:
    """Begin nothing more, for good: who has not had its turn stays untouched."""
    if roll.state is RollState.ABORTED:
        return roll, "the roll is aborted already"
    return replace(roll, state=RollState.ABORTED, why=why), None


def retried(roll: Roll) -> tuple[Roll, str | None]:
    """Give each failed member another turn, after those that still wait for their first."""
    failed = [member for member in roll.members if member.outcome is Outcome.FAILED]
    if roll.state is RollState.ABORTED:
        return roll, "the roll is aborted"
    if not failed:
        return roll, "none has failed"
    rest = [member for member in roll.members if member.outcome is not Outcome.FAILED]
    again = [replace(member, outcome=Outcome.WAITING, tries=0, since=None) for member in failed]
    return replace(roll, members=(*rest, *again)), None


def _lost(member: Member, seen: Seen) -> str:
    """Why the member will not get online by itself, or not soon; empty if it may."""
    blamed = seen.error_generation >= member.generation
    if seen.phase is Phase.FAILED and (blamed or seen.generation >= member.generation):
        return seen.error or "the workspace is failed"
    # The generation was given up, and the lifecycle's own attempts follow: the roll hears the first word.
    if blamed and seen.error_phase in _MISSED and seen.generation > seen.error_generation:
        return seen.error
    return ""


def _outrun(member: Member, seen: Seen) -> Member:
    if member.tries >= MOST_TRIES:
        why = f"generation {seen.generation} is online with {seen.image_id}: others recreate it all the time"
        return replace(member, outcome=Outcome.FAILED, generation=seen.generation, detail=why)
    why = f"generation {seen.generation} was on its way before, with {seen.image_id}: once more"
    return replace(member, outcome=Outcome.WAITING, detail=why)


def _judged(roll: Roll, *, before: Roll, at: datetime) -> Roll:
    """Count what failed since, and pause if that is too much."""
    lost = sum(
        after.outcome is Outcome.FAILED and earlier.outcome is not Outcome.FAILED
        for after, earlier in zip(roll.members, before.members, strict=True)
    )
    failures = roll.failures + lost
    proven = roll.proven or count(roll, Outcome.RECREATED) > 0
    roll = replace(roll, failures=failures, proven=proven)
    if roll.state is not RollState.ROLLING or failures == before.failures:
        return roll
    if not proven:
        return replace(roll, state=RollState.PAUSED, why=f"the canary failed at {at:%H:%M:%S} UTC")
    if failures >= roll.max_failures:
        return replace(roll, state=RollState.PAUSED, why=f"{failures} failed, the last at {at:%H:%M:%S} UTC")
    return roll
