"""The rules of a fleet rollout: which members start, their outcomes, when to pause, when it is over.

A rollout recreates many workspaces, a bounded share at a time. The state of the members in PostgreSQL and the
time are arguments. Standard library only.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import floor

from workflows.workspace.enums import Intent, Phase, Step

MAX_ATTEMPTS = 3
"""Recreate requests per member. A request may join a recreate that began with the old image; then the rollout
requests another one. After three, the member fails."""

MAX_DETAIL_CHARS = 300

_MISSED = (Step.AWAIT_REGISTRATION, Step.CANARY, Step.PROCESS)
"""The steps whose failure replaces a box that runs but did not come online."""


class RolloutState(StrEnum):
    """The state of a rollout."""

    PLANNED = "planned"
    """The members are known. `proceed` starts the rollout."""
    ROLLING = "rolling"
    PAUSED = "paused"
    """No more members start; those in flight continue."""
    ABORTED = "aborted"
    """Like paused, and final."""


class Outcome(StrEnum):
    """The outcome of a member."""

    WAITING = "waiting"
    """Not started yet."""
    IN_FLIGHT = "in_flight"
    RECREATED = "recreated"
    UNNEEDED = "unneeded"
    """Already online with the image."""
    SKIPPED = "skipped"
    """Stopped or deleted."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A workspace of the rollout."""

    workspace_id: str
    outcome: Outcome = Outcome.WAITING
    generation: int = 0
    """The generation that the rollout waits for, or that came online; 0 before the start."""
    request_count: int = 0
    """The number of recreate requests; each has its own request ID."""
    attempts: int = 0
    """The number of recreate requests since the start, or since an operator's retry."""
    since: datetime | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """A member's state in PostgreSQL."""

    workspace_id: str
    generation: int
    """The newest generation that was opened."""
    intent: Intent
    deleted: bool
    phase: Phase
    available: bool
    """Online and healthy."""
    image_id: str | None
    """The image of that generation's box."""
    error: str = ""
    """Message of the last error."""
    error_phase: Step | None = None
    error_generation: int = 0
    error_refused: bool = False
    """AWS rejects a call of its recreate, and may do so for good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """The state of all members at one time."""

    seen: tuple[MemberState, ...]
    """The states of the tracked members."""
    down: frozenset[str]
    """All members that are unavailable for any reason, in flight or not."""
    blocked_reason: str | None = None
    """Why the fleet allows no more members to start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """The whole state of a rollout; carried over by continue-as-new."""

    members: tuple[Member, ...]
    """In the order in which they start."""
    allowed: int
    """How many members may be unavailable at once, for any reason."""
    max_failures: int
    """Failures since the start or resume that pause the rollout. Before the canary is online, one does."""
    image_id: str | None = None
    deadline: timedelta = timedelta(minutes=30)
    state: RolloutState = RolloutState.PLANNED
    why: str = ""
    """Why the rollout is in this state."""
    failures: int = 0
    """Failures since the start or resume."""
    canary_passed: bool = False
    """A member came online in this rollout."""
    down: frozenset[str] = field(default_factory=frozenset)
    """The unavailable members in the last survey."""
    blocked_reason: str | None = None


def allowed(members: int, max_unavailable: float) -> int:
    """How many members may be unavailable: a share below 1, otherwise a number; at least one."""
    if max_unavailable >= 1:
        return int(max_unavailable)
    return max(1, floor(members * max_unavailable + 1e-9))  # 0.1 * 30 is less than 3 in binary


def in_flight(rollout: Rollout) -> tuple[Member, ...]:
    """The members in flight."""
    return tuple(member for member in rollout.members if member.outcome is Outcome.IN_FLIGHT)


def tracked_members(rollout: Rollout) -> tuple[Member, ...]:
    """The members to observe: in flight, or failed, since a failed member may come online late."""
    return tuple(
        member for member in rollout.members if member.outcome in (Outcome.IN_FLIGHT, Outcome.FAILED)
    )


def count(rollout: Rollout, outcome: Outcome) -> int:
    """How many members have this outcome."""
    return sum(member.outcome is outcome for member in rollout.members)


def unavailable(rollout: Rollout) -> frozenset[str]:
    """The members that count as unavailable. A member in flight does, even while its old box still runs."""
    return rollout.down | {member.workspace_id for member in in_flight(rollout)}


def is_over(rollout: Rollout) -> bool:
    """Whether no member is in flight, and none will start."""
    if in_flight(rollout):
        return False
    return rollout.state is RolloutState.ABORTED or not count(rollout, Outcome.WAITING)


def next_members(rollout: Rollout) -> tuple[Member, ...]:
    """The members to start now, according to the last survey."""
    if rollout.state is not RolloutState.ROLLING or rollout.blocked_reason is not None:
        return ()
    waiting = [member for member in rollout.members if member.outcome is Outcome.WAITING]
    free = [member for member in waiting if member.workspace_id in rollout.down]
    # A member that is down already needs no capacity. The canary should be a healthy member, so that its
    # failure points to the rollout.
    costly = [member for member in waiting if member.workspace_id not in rollout.down]
    costly = costly[: max(0, rollout.allowed - len(unavailable(rollout)))]
    ordered = [*free, *costly] if rollout.canary_passed else [*costly, *free]
    return tuple(ordered[: max(0, _slots(rollout))])


def wants_capacity(rollout: Rollout) -> bool:
    """Whether more members would start if enough others were available and the fleet allowed it."""
    return (
        rollout.state is RolloutState.ROLLING
        and bool(count(rollout, Outcome.WAITING))
        and _slots(rollout) > 0
    )


def _slots(rollout: Rollout) -> int:
    """How many more members may be in flight."""
    return (rollout.allowed if rollout.canary_passed else 1) - len(in_flight(rollout))


def members_started(rollout: Rollout, started: Iterable[Member], at: datetime) -> Rollout:
    """Apply the outcomes of the requests: the members are in flight, or have a final outcome."""
    by_id = {
        member.workspace_id: replace(member, since=at, detail=member.detail[:MAX_DETAIL_CHARS])
        for member in started
    }
    members = tuple(by_id.get(member.workspace_id, member) for member in rollout.members)
    return _pause_on_failures(replace(rollout, members=members), before=rollout, at=at)


def apply_survey(rollout: Rollout, survey: Survey, at: datetime) -> Rollout:
    """Update the members' outcomes from a survey, and pause if too many have failed."""
    by_id = {state.workspace_id: state for state in survey.seen}
    members = tuple(
        _with_outcome(member, by_id.get(member.workspace_id), rollout, at) for member in rollout.members
    )
    return _pause_on_failures(
        replace(rollout, members=members, down=survey.down, blocked_reason=survey.blocked_reason),
        before=rollout,
        at=at,
    )


def _with_outcome(member: Member, state: MemberState | None, rollout: Rollout, at: datetime) -> Member:
    if member.outcome is Outcome.IN_FLIGHT:
        return member_result(member, state, rollout, at)
    # Without an accepted request the member has no generation that could come online late.
    if member.outcome is Outcome.FAILED and member.generation and state is not None:
        late = member_result(member, state, rollout, at)
        if late.outcome is Outcome.RECREATED:
            return replace(late, detail="it came online late")
    return member


def member_result(member: Member, state: MemberState | None, rollout: Rollout, at: datetime) -> Member:
    """A member in flight with its outcome; unchanged if it has none yet."""
    if state is None or state.deleted or state.intent is not Intent.RUN:
        return replace(member, outcome=Outcome.SKIPPED, detail="stopped or deleted during the rollout")
    if state.generation >= member.generation and state.available:
        if rollout.image_id is None or state.image_id == rollout.image_id:
            return replace(member, outcome=Outcome.RECREATED, generation=state.generation, detail="")
        return _online_with_other_image(member, state)
    if why := _failure(member, state):
        return replace(member, outcome=Outcome.FAILED, detail=why[:MAX_DETAIL_CHARS])
    if member.since is not None and at >= member.since + rollout.deadline:
        minutes = rollout.deadline.total_seconds() / 60
        why = f"not online after {minutes:g} min: {state.phase}" + (f"; {state.error}" if state.error else "")
        return replace(member, outcome=Outcome.FAILED, detail=why[:MAX_DETAIL_CHARS])
    return member


def proceeded(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Start the rollout. The second value says why it cannot start, as in the functions below."""
    if rollout.state is not RolloutState.PLANNED:
        return rollout, f"the rollout is {rollout.state}; only a planned one can proceed"
    return replace(rollout, state=RolloutState.ROLLING, why=""), None


def paused(rollout: Rollout, why: str) -> tuple[Rollout, str | None]:
    """Start no more members until `resumed`."""
    if rollout.state is not RolloutState.ROLLING:
        return rollout, f"the rollout is {rollout.state}; only a rolling one can be paused"
    return replace(rollout, state=RolloutState.PAUSED, why=why), None


def resumed(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Continue, and count failures from 0."""
    if rollout.state is not RolloutState.PAUSED:
        return rollout, f"the rollout is {rollout.state}; only a paused one can be resumed"
    return replace(rollout, state=RolloutState.ROLLING, why="", failures=0), None


def aborted(rollout: Rollout, why: str) -> tuple[Rollout, str | None]:
    """Start no more members, finally."""
    if rollout.state is RolloutState.ABORTED:
        return rollout, "the rollout is aborted already"
    return replace(rollout, state=RolloutState.ABORTED, why=why), None


def retried(rollout: Rollout) -> tuple[Rollout, str | None]:
    """Start each failed member again, after the members that have not started yet."""
    failed = [member for member in rollout.members if member.outcome is Outcome.FAILED]
    if rollout.state is RolloutState.ABORTED:
        return rollout, "the rollout is aborted"
    if not failed:
        return rollout, "no member has failed"
    rest = [member for member in rollout.members if member.outcome is not Outcome.FAILED]
    again = [replace(member, outcome=Outcome.WAITING, attempts=0, since=None) for member in failed]
    return replace(rollout, members=(*rest, *again)), None


def _failure(member: Member, state: MemberState) -> str:
    """Why the member has failed; empty if it may still come online soon."""
    is_own_error = state.error_generation >= member.generation
    if state.phase is Phase.FAILED and (is_own_error or state.generation >= member.generation):
        return state.error or "the workspace is failed"
    # The lifecycle retries until the cause is gone. Another image or subnet may be what it takes.
    if is_own_error and state.error_refused:
        return state.error
    # The member's generation was replaced. The lifecycle tries more, but the first failure counts here.
    if is_own_error and state.error_phase in _MISSED and state.generation > state.error_generation:
        return state.error
    return ""


def _online_with_other_image(member: Member, state: MemberState) -> Member:
    if member.attempts >= MAX_ATTEMPTS:
        why = (
            f"generation {state.generation} is online with {state.image_id}: "
            f"other recreates came first {MAX_ATTEMPTS} times"
        )
        return replace(member, outcome=Outcome.FAILED, generation=state.generation, detail=why)
    why = f"generation {state.generation} was in progress before, with {state.image_id}: requesting another"
    return replace(member, outcome=Outcome.WAITING, detail=why)


def _pause_on_failures(rollout: Rollout, *, before: Rollout, at: datetime) -> Rollout:
    """Count the new failures, and pause if there are too many."""
    failed = sum(
        after.outcome is Outcome.FAILED and earlier.outcome is not Outcome.FAILED
        for after, earlier in zip(rollout.members, before.members, strict=True)
    )
    failures = rollout.failures + failed
    canary_passed = rollout.canary_passed or count(rollout, Outcome.RECREATED) > 0
    rollout = replace(rollout, failures=failures, canary_passed=canary_passed)
    if rollout.state is not RolloutState.ROLLING or failures == before.failures:
        return rollout
    if not canary_passed:
        return replace(rollout, state=RolloutState.PAUSED, why=f"the canary failed at {at:%H:%M:%S} UTC")
    if failures >= rollout.max_failures:
        return replace(
            rollout, state=RolloutState.PAUSED, why=f"{failures} failed, the last at {at:%H:%M:%S} UTC"
        )
    return rollout
