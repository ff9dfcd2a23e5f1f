"""A fleet rollout: many workspaces recreated, a bounded share at a time. Standard library only.

Says who is next, when to pause, what became of each, and when it is over. It neither asks nor looks: what the
record says comes in as values, and time is an argument.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import floor

from workflows.workspace.state import Intent, Phase, Step

MAX_ATTEMPTS = 3
"""Recreate requests per member. A request may join a recreate that began with the old image; then the rollout
requests another one. After three, an operator should look."""

MAX_DETAIL_CHARS = 300

_MISSED = (Step.AWAIT_REGISTRATION, Step.CANARY, Step.PROCESS)
"""What a box that came up and did not get online is given up for."""


class RolloutState(StrEnum):
    """How far the rollout is."""

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
    """A workspace of the rollout."""

    workspace_id: str
    outcome: Outcome = Outcome.WAITING
    generation: int = 0
    """The one that is waited for, or that it came to; 0 before its turn."""
    request_count: int = 0
    """How often its recreation was asked for: each time under a request ID of its own."""
    attempts: int = 0
    """The same since it was begun, or since a human had it retried."""
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
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

    seen: tuple[MemberState, ...]
    """Those that were asked about: the ones that are followed."""
    down: frozenset[str]
    """Members that are not available, whoever caused it; of those in flight or not."""
    blocked_reason: str | None = None
    """Why nothing may begin now, as far as the fleet is concerned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """All that is remembered of a rollout."""

    members: tuple[Member, ...]
    """In the order of their turns."""
    allowed: int
    """So many may be unavailable at once, whoever caused it."""
    max_failures: int
    """So many failures since it was begun or resumed pause it; until one came online, one does."""
    image_id: str | None = None
    deadline: timedelta = timedelta(minutes=30)
    state: RolloutState = RolloutState.PLANNED
    why: str = ""
    """Of that state, in words."""
    failures: int = 0
    """Since it was begun or resumed."""
    canary_passed: bool = False
    """A member came online by this rollout: the canary is through."""
    down: frozenset[str] = field(default_factory=frozenset)
    """As the last survey had it."""
    blocked_reason: str | None = None


def allowed(members: int, max_unavailable: float) -> int:
    """A share below 1, else a number; at least one, or nothing could ever be rolled."""
    if max_unavailable >= 1:
        return int(max_unavailable)
    return max(1, floor(members * max_unavailable + 1e-9))  # 0.1 * 30 is less than 3 in binary


def in_flight(rollout: Rollout) -> tuple[Member, ...]:
    """Those on the way."""
    return tuple(member for member in rollout.members if member.outcome is Outcome.IN_FLIGHT)


def tracked_members(rollout: Rollout) -> tuple[Member, ...]:
    """Those whose records are news: on the way, or failed, for a box may come late."""
    return tuple(
        member for member in rollout.members if member.outcome in (Outcome.IN_FLIGHT, Outcome.FAILED)
    )


def count(rollout: Rollout, outcome: Outcome) -> int:
    """How many members have that outcome."""
    return sum(member.outcome is outcome for member in rollout.members)


def unavailable(rollout: Rollout) -> frozenset[str]:
    """Members that are not available: one in flight is none, whatever its record still says."""
    return rollout.down | {member.workspace_id for member in in_flight(rollout)}


def is_over(rollout: Rollout) -> bool:
    """Whether nothing is left to be done or waited for."""
    if in_flight(rollout):
        return False
    return rollout.state is RolloutState.ABORTED or not count(rollout, Outcome.WAITING)


def next_members(rollout: Rollout) -> tuple[Member, ...]:
    """Whose turn it is now, judged by the last survey."""
    if rollout.state is not RolloutState.ROLLING or rollout.blocked_reason is not None:
        return ()
    taken = len(unavailable(rollout))
    waiting = [member for member in rollout.members if member.outcome is Outcome.WAITING]
    free = [member for member in waiting if member.workspace_id in rollout.down]
    # Who is down already can only gain, and takes no room. The canary had better be a healthy one: its
    # failure should say something about the rollout.
    costly = [member for member in waiting if member.workspace_id not in rollout.down]
    costly = costly[: max(0, rollout.allowed - taken)]
    ordered = [*free, *costly] if rollout.canary_passed else [*costly, *free]
    return tuple(ordered[: max(0, _slots(rollout))])


def wants_capacity(rollout: Rollout) -> bool:
    """Whether more would begin if there were room, and nothing held the fleet."""
    return (
        rollout.state is RolloutState.ROLLING
        and bool(count(rollout, Outcome.WAITING))
        and _slots(rollout) > 0
    )


def _slots(rollout: Rollout) -> int:
    """How many more may be on the way at once."""
    return (rollout.allowed if rollout.canary_passed else 1) - len(in_flight(rollout))


def members_started(rollout: Rollout, turns: Iterable[Member], at: datetime) -> Rollout:
    """Put what became of the requests on the members: in flight, or settled at once."""
    by_id = {
        turn.workspace_id: replace(turn, since=at, detail=turn.detail[:MAX_DETAIL_CHARS]) for turn in turns
    }
    members = tuple(by_id.get(member.workspace_id, member) for member in rollout.members)
    return _judged(replace(rollout, members=members), before=rollout, at=at)


def apply_survey(rollout: Rollout, survey: Survey, at: datetime) -> Rollout:
    """Take a look at the record in."""
    by_id = {seen.workspace_id: seen for seen in survey.seen}
    members = tuple(
        _followed_up(member, by_id.get(member.workspace_id), rollout, at) for member in rollout.members
    )
    return _judged(
        replace(rollout, members=members, down=survey.down, blocked_reason=survey.blocked_reason),
        before=rollout,
        at=at,
    )


def _followed_up(member: Member, seen: MemberState | None, rollout: Rollout, at: datetime) -> Member:
    if member.outcome is Outcome.IN_FLIGHT:
        return member_result(member, seen, rollout, at)
    # Before its turn was accepted no generation is its own, and nothing that comes online is.
    if member.outcome is Outcome.FAILED and member.generation and seen is not None:
        late = member_result(member, seen, rollout, at)
        if late.outcome is Outcome.RECREATED:
            return replace(late, detail="it came online late")
    return member


def member_result(member: Member, seen: MemberState | None, rollout: Rollout, at: datetime) -> Member:
    """What became of a member in flight; itself if it still is."""
    if seen is None or seen.deleted or seen.intent is not Intent.RUN:
        return replace(member, outcome=Outcome.SKIPPED, detail="stopped or deleted meanwhile")
    if seen.generation >= member.generation and seen.available:
        if rollout.image_id is None or seen.image_id == rollout.image_id:
            return replace(member, outcome=Outcome.RECREATED, generation=seen.generation, detail="")
        return _outrun(member, seen)
    if why := _lost(member, seen):
        return replace(member, outcome=Outcome.FAILED, detail=why[:MAX_DETAIL_CHARS])
    if member.since is not None and at >= member.since + rollout.deadline:
        minutes = rollout.deadline.total_seconds() / 60
        why = f"not online after {minutes:g} min: {seen.phase}" + (f"; {seen.error}" if seen.error else "")
        return replace(member, outcome=Outcome.FAILED, detail=why[:MAX_DETAIL_CHARS])
    return member


def proceeded(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Begin what was planned; the second value says why not."""
    if rollout.state is not RolloutState.PLANNED:
        return rollout, f"the rollout is {rollout.state}: there is nothing to proceed with"
    return replace(rollout, state=RolloutState.ROLLING, why=""), None


def paused(rollout: Rollout, why: str) -> tuple[Rollout, str | None]:
    """Begin nothing new."""
    if rollout.state is not RolloutState.ROLLING:
        return rollout, f"the rollout is {rollout.state}: there is nothing to pause"
    return replace(rollout, state=RolloutState.PAUSED, why=why), None


def resumed(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Go on; failures are counted anew."""
    if rollout.state is not RolloutState.PAUSED:
        return rollout, f"the rollout is {rollout.state}: there is nothing to resume"
    return replace(rollout, state=RolloutState.ROLLING, why="", failures=0), None


def aborted(rollout: Rollout, why: str) -> tuple[Rollout, str | None]:
    """Begin nothing more, for good: who has not had its turn stays untouched."""
    if rollout.state is RolloutState.ABORTED:
        return rollout, "the rollout is aborted already"
    return replace(rollout, state=RolloutState.ABORTED, why=why), None


def retried(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Give each failed member another turn, after those that still wait for their first."""
    failed = [member for member in rollout.members if member.outcome is Outcome.FAILED]
    if rollout.state is RolloutState.ABORTED:
        return rollout, "the rollout is aborted"
    if not failed:
        return rollout, "none has failed"
    rest = [member for member in rollout.members if member.outcome is not Outcome.FAILED]
    again = [replace(member, outcome=Outcome.WAITING, attempts=0, since=None) for member in failed]
    return replace(rollout, members=(*rest, *again)), None


def _lost(member: Member, seen: MemberState) -> str:
    """Why the member will not get online by itself, or not soon; empty if it may."""
    blamed = seen.error_generation >= member.generation
    if seen.phase is Phase.FAILED and (blamed or seen.generation >= member.generation):
        return seen.error or "the workspace is failed"
    # The generation was given up, and the lifecycle's own attempts follow: the rollout hears the first word.
    if blamed and seen.error_phase in _MISSED and seen.generation > seen.error_generation:
        return seen.error
    return ""


def _outrun(member: Member, seen: MemberState) -> Member:
    if member.attempts >= MAX_ATTEMPTS:
        why = f"generation {seen.generation} is online with {seen.image_id}: others recreate it all the time"
        return replace(member, outcome=Outcome.FAILED, generation=seen.generation, detail=why)
    why = f"generation {seen.generation} was on its way before, with {seen.image_id}: once more"
    return replace(member, outcome=Outcome.WAITING, detail=why)


def _judged(rollout: Rollout, *, before: Rollout, at: datetime) -> Rollout:
    """Count what failed since, and pause if that is too much."""
    lost = sum(
        after.outcome is Outcome.FAILED and earlier.outcome is not Outcome.FAILED
        for after, earlier in zip(rollout.members, before.members, strict=True)
    )
    failures = rollout.failures + lost
    proven = rollout.canary_passed or count(rollout, Outcome.RECREATED) > 0
    rollout = replace(rollout, failures=failures, canary_passed=proven)
    if rollout.state is not RolloutState.ROLLING or failures == before.failures:
        return rollout
    if not proven:
        return replace(rollout, state=RolloutState.PAUSED, why=f"the canary failed at {at:%H:%M:%S} UTC")
    if failures >= rollout.max_failures:
        return replace(
            rollout, state=RolloutState.PAUSED, why=f"{failures} failed, the last at {at:%H:%M:%S} UTC"
        )
    return rollout
