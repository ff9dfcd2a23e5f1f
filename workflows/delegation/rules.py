"""The life of a delegation: its states, what may follow what, and what is due. Standard library only.

A delegation is work handed from one workspace to another. Nothing here sends it, stores it or knows the time.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class DelegationState(StrEnum):
    """How far it is. Forward only, steps may be skipped, the last four are final."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    """The transport answered 2xx, no more."""
    ACKED = "acked"
    """The target said that it has it."""
    IN_PROGRESS = "in_progress"
    PROCESSED = "processed"
    """The target said that it is done (invariant I10)."""
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


class DelegationType(StrEnum):
    """Who sends it."""

    DELEGATE = "delegate"
    """The control plane."""
    RECORD = "record"
    """The source's own runtime; here it is only written down."""
    CANARY = "canary"
    """The control plane, for itself: never shown to users as work."""


TERMINAL = frozenset(
    {
        DelegationState.PROCESSED,
        DelegationState.FAILED,
        DelegationState.EXPIRED,
        DelegationState.CANCELED,
    }
)

_RANK = {
    DelegationState.QUEUED: 0,
    DelegationState.DELIVERED: 1,
    DelegationState.ACKED: 2,
    DelegationState.IN_PROGRESS: 3,
    **dict.fromkeys(TERMINAL, 4),
}

ACKNOWLEDGED = frozenset({DelegationState.ACKED, DelegationState.IN_PROGRESS})

LEGACY_STATUSES = {
    DelegationState.QUEUED: "queued",
    DelegationState.DELIVERED: "dispatched",
    DelegationState.ACKED: "in_progress",
    DelegationState.IN_PROGRESS: "in_progress",
    DelegationState.PROCESSED: "completed",
    DelegationState.FAILED: "failed",
    DelegationState.EXPIRED: "failed",
    DelegationState.CANCELED: "failed",
}
"""What old clients read: `completed` once it was processed and never before."""

REPORTED_STATES = {
    "queued": DelegationState.QUEUED,
    "acked": DelegationState.ACKED,
    "in_progress": DelegationState.IN_PROGRESS,
    "completed": DelegationState.PROCESSED,
    "failed": DelegationState.FAILED,
}
"""What runtimes report."""

INITIAL_BACKOFF = timedelta(seconds=1)
MAX_BACKOFF = timedelta(seconds=30)
"""Between tries to reach a box; it is also tried at once when the box registers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long each part may take."""

    ack: timedelta = timedelta(seconds=120)
    progress: timedelta = timedelta(minutes=10)
    expires_after: timedelta = timedelta(hours=6)
    attempts: int = 5
    """Deliveries, and refusals of one; a box that can't be reached at all counts as none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """What the record says of the workspace that is to process it."""

    deleted: bool = False
    generation: int | None = None
    """The current one; none while it is stopped by intent."""
    reachable: bool = False
    """Its box is registered at a recorded address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """One row of the ledger, as far as decisions need it."""

    type: DelegationType
    state: DelegationState
    created_at: datetime
    attempt: int = 0
    """Deliveries and refusals so far."""
    connect_failures: int = 0
    """Tries in a row that did not reach the box."""
    not_before: datetime | None = None
    target_generation: int | None = None
    """Whose box it was delivered to."""
    progressed_at: datetime | None = None
    """When it was acked, or the target last said anything of it."""
    idempotent: bool = False
    """Whether it may be processed twice."""
    stalled: bool = False
    dead_lettered: bool = False
    """A dead letter: no more attempts until a human says so."""
    source_deleted: bool = False
    receiver: Receiver


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing is to be done, ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """It ends without having been processed."""

    state: DelegationState
    code: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Send it to the box of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """Its box was replaced: queue it again, under the same ID."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """It has become a dead letter."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Nothing was heard of it for too long: a flag, not a state."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Something outside has to happen, or this time to come."""

    until: datetime


Due = Over | End | Deliver | Requeue | DeadLetter | Stall | Wait


def may_become(now: DelegationState, then: DelegationState) -> bool:
    """Whether a state may follow another; the one exception, queueing again, is not asked here."""
    return now not in TERMINAL and _RANK[then] > _RANK[now]


def predecessors(then: DelegationState) -> tuple[DelegationState, ...]:
    """The states that this one may follow: for conditions in the database."""
    return tuple(state for state in DelegationState if may_become(state, then))


def backoff(connect_failures: int) -> timedelta:
    """How long to wait after so many tries in a row that did not reach the box."""
    return min(INITIAL_BACKOFF * (1 << min(max(connect_failures - 1, 0), 10)), MAX_BACKOFF)


def due(it: Delegation, now: datetime, deadlines: Deadlines) -> Due:
    """What is to be done now."""
    ends_at = it.created_at + deadlines.expires_after
    if it.state in TERMINAL:
        return Over()
    if now >= ends_at:
        return End(
            state=DelegationState.EXPIRED,
            code="expired",
            error=f"not processed within {_format_duration(deadlines.expires_after)}",
        )
    if it.source_deleted:
        return End(
            state=DelegationState.CANCELED,
            code="source_deleted",
            error="the workspace that asked was deleted",
        )
    if it.receiver.deleted:
        return End(
            state=DelegationState.FAILED, code="target_deleted", error="the target workspace was deleted"
        )
    if it.type is DelegationType.RECORD:
        return Wait(ends_at)
    if it.state is DelegationState.QUEUED:
        return _queued(it, now, deadlines, ends_at)
    return _delivered(it, now, deadlines, ends_at)


def _queued(it: Delegation, now: datetime, deadlines: Deadlines, ends_at: datetime) -> Due:
    if it.dead_lettered:
        return Wait(ends_at)
    if it.attempt >= deadlines.attempts:
        return DeadLetter()
    if it.receiver.generation is None:
        return Wait(ends_at)  # stopped by intent: it is stirred when its box comes
    if it.not_before is not None and now < it.not_before:
        return Wait(min(it.not_before, ends_at))
    if not it.receiver.reachable:
        return Wait(min(now + backoff(it.connect_failures + 3), ends_at))
    return Deliver(generation=it.receiver.generation)


def _delivered(it: Delegation, now: datetime, deadlines: Deadlines, ends_at: datetime) -> Due:
    current = it.receiver.generation
    if current is not None and current != it.target_generation:
        if it.state is DelegationState.DELIVERED or it.idempotent:
            return Requeue()
        return End(
            state=DelegationState.FAILED,
            code="target_replaced",
            error="the target's box was replaced while it worked on it, and it is not marked idempotent",
        )
    if it.state is DelegationState.DELIVERED:
        return Wait(ends_at)  # whether the agent is dead is the workspace's matter
    stalls_at = (it.progressed_at or it.created_at) + deadlines.progress
    if it.stalled:
        return Wait(ends_at)
    return Stall() if now >= stalls_at else Wait(min(stalls_at, ends_at))


def _format_duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
