"""The state machine of a delegation: states, transitions, and the action that is due. Standard library only.

A delegation is work that one workspace hands to another. Time is an argument.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum


class DelegationState(StrEnum):
    """States only move forward and may be skipped. The last four are final."""

    QUEUED = "queued"
    DELIVERED = "delivered"
    """The box answered the delivery with 2xx."""
    ACKED = "acked"
    """The target has acknowledged the work."""
    IN_PROGRESS = "in_progress"
    PROCESSED = "processed"
    """The target has reported the work as done (invariant I10)."""
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


class DelegationType(StrEnum):
    """Who delivers the work."""

    DELEGATE = "delegate"
    """The control plane delivers it."""
    RECORD = "record"
    """The source's runtime delivers it; the control plane only records it."""
    CANARY = "canary"
    """A canary of the control plane; users never see it as work."""


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
"""States in the older API: `completed` only once the work is processed."""

REPORTED_STATES = {
    "queued": DelegationState.QUEUED,
    "acked": DelegationState.ACKED,
    "in_progress": DelegationState.IN_PROGRESS,
    "completed": DelegationState.PROCESSED,
    "failed": DelegationState.FAILED,
}
"""The states that runtimes report, by name."""

INITIAL_BACKOFF = timedelta(seconds=1)
MAX_BACKOFF = timedelta(seconds=30)
"""Between attempts to connect to a box. When a box registers, the next attempt follows at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """The time limits of a delegation."""

    ack: timedelta = timedelta(seconds=120)
    progress: timedelta = timedelta(minutes=10)
    expires_after: timedelta = timedelta(hours=6)
    attempts: int = 5
    """Limit of deliveries, refused ones included. Failed connections do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """The target workspace, as PostgreSQL has it."""

    deleted: bool = False
    generation: int | None = None
    """The open generation; None while the workspace is stopped."""
    reachable: bool = False
    """Whether its box is registered and has a recorded address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegation:
    """One row of the delegations table, as far as decisions need it."""

    type: DelegationType
    state: DelegationState
    created_at: datetime
    attempt: int = 0
    """Deliveries so far, refused ones included."""
    connect_failures: int = 0
    """Consecutive failures to connect to the box."""
    not_before: datetime | None = None
    target_generation: int | None = None
    """The generation whose box received it."""
    progressed_at: datetime | None = None
    """Time of the acknowledgement, or of the target's last report."""
    idempotent: bool = False
    """Whether the work may be processed twice."""
    stalled: bool = False
    dead_lettered: bool = False
    """A dead letter: no more attempts until an operator resends it."""
    source_deleted: bool = False
    receiver: Receiver


@dataclass(frozen=True, slots=True)
class Over:
    """The delegation is in a final state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End the delegation without a result."""

    state: DelegationState
    code: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Deliver it to the box of this generation."""

    generation: int


@dataclass(frozen=True, slots=True)
class Requeue:
    """Queue it again under the same ID, because the box was replaced."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Make it a dead letter, because its attempts are used up."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Flag it as stalled, because the target has not reported for too long. The state stays."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for an event, or until this time."""

    until: datetime


Due = Over | End | Deliver | Requeue | DeadLetter | Stall | Wait


def may_become(now: DelegationState, then: DelegationState) -> bool:
    """Whether a state may follow another. Queueing again after a replacement is the one exception."""
    return now not in TERMINAL and _RANK[then] > _RANK[now]


def predecessors(then: DelegationState) -> tuple[DelegationState, ...]:
    """The states that this one may follow, for conditions in SQL."""
    return tuple(state for state in DelegationState if may_become(state, then))


def backoff(connect_failures: int) -> timedelta:
    """How long to wait after this number of consecutive failures to connect."""
    return min(INITIAL_BACKOFF * (1 << min(max(connect_failures - 1, 0), 10)), MAX_BACKOFF)


def due(it: Delegation, now: datetime, deadlines: Deadlines) -> Due:
    """The action that is due now."""
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
            error="the source workspace was deleted",
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
        return Wait(ends_at)  # the workspace is stopped; a signal wakes this when its next box registers
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
            error="the target's box was replaced while it processed the work, which is not marked idempotent",
        )
    if it.state is DelegationState.DELIVERED:
        return Wait(ends_at)  # the workspace's lifecycle detects an unresponsive agent
    stalls_at = (it.progressed_at or it.created_at) + deadlines.progress
    if it.stalled:
        return Wait(ends_at)
    return Stall() if now >= stalls_at else Wait(min(stalls_at, ends_at))


def _format_duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds:g} s"
