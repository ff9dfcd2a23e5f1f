"""Whether a snapshot of a data volume is due. Standard library only; time is an argument."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MIN_INTERVAL = timedelta(minutes=15)
"""Recreates come in bursts, and the first snapshot of a burst has all the data."""

INITIAL_BACKOFF = timedelta(seconds=15)
"""EC2 refuses a second snapshot of one volume within 15 s (`SnapshotCreationPerVolumeRateExceeded`)."""

MAX_BACKOFF = MIN_INTERVAL

UNLISTED_SNAPSHOT_LOST_AFTER = timedelta(minutes=5)
"""EC2's lists are eventually consistent, with delays of minutes. A snapshot that is still missing after this
time was not created by the call whose response was lost."""


class SnapshotDecision(StrEnum):
    """Whether to request a snapshot, or why not."""

    ASK = "ask"
    """Request one."""
    PENDING = "pending"
    """The snapshot in progress is enough."""
    RECENT = "recent"
    """The snapshot requested within `MIN_INTERVAL` is enough."""
    BACKING_OFF = "backing_off"
    """EC2 has refused a request, and the backoff is not over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHistory:
    """The snapshots of one volume, as far as decisions need them."""

    pending: bool = False
    """A snapshot is in progress, or may be: the response to its call was lost."""
    asked_at: datetime | None = None
    """When the newest snapshot was requested that exists or may exist."""
    refusals: int = 0
    """Consecutive refusals since the last snapshot."""
    refused_at: datetime | None = None


def decide(past: SnapshotHistory, now: datetime) -> SnapshotDecision:
    """Decide whether to request a snapshot now."""
    if past.pending:
        return SnapshotDecision.PENDING
    if past.asked_at is not None and now - past.asked_at < MIN_INTERVAL:
        return SnapshotDecision.RECENT
    if past.refused_at is not None and now - past.refused_at < backoff(past.refusals):
        return SnapshotDecision.BACKING_OFF
    return SnapshotDecision.ASK


def backoff(refusals: int) -> timedelta:
    """How long to wait after refusals: doubled with each consecutive one."""
    if refusals < 1:
        return timedelta()
    doublings = min(refusals - 1, 10)
    return min(INITIAL_BACKOFF * (1 << doublings), MAX_BACKOFF)
