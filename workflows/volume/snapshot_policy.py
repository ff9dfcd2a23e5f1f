"""Whether a snapshot of a data volume is due. Standard library only.

Judges what was asked before; it asks for nothing, and time is an argument.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MIN_INTERVAL = timedelta(minutes=15)
"""Recreates come in bursts; within one the first snapshot has all that there is to save."""

INITIAL_BACKOFF = timedelta(seconds=15)
"""EC2 refuses a second snapshot of one volume within 15 s (`SnapshotCreationPerVolumeRateExceeded`)."""

MAX_BACKOFF = MIN_INTERVAL

UNLISTED_SNAPSHOT_LOST_AFTER = timedelta(minutes=5)
"""EC2's listings are late by minutes at most: then a call whose answer was lost has made none."""


class SnapshotDecision(StrEnum):
    """What is to be done about the wish for a snapshot."""

    ASK = "ask"
    PENDING = "pending"
    """One is under way: it serves this wish as well."""
    RECENT = "recent"
    """One was asked for within the spacing, which serves this wish as well."""
    BACKING_OFF = "backing_off"
    """EC2 has refused one, and is left in peace for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotHistory:
    """What is known of the snapshots of one volume."""

    pending: bool = False
    """One is under way, or may be: its call's answer was lost."""
    asked_at: datetime | None = None
    """When the newest was asked for that exists or may exist, whatever became of it."""
    refusals: int = 0
    """In a row, since one was last taken."""
    refused_at: datetime | None = None


def decide(past: SnapshotHistory, now: datetime) -> SnapshotDecision:
    """What to do about the wish for a snapshot now."""
    if past.pending:
        return SnapshotDecision.PENDING
    if past.asked_at is not None and now - past.asked_at < MIN_INTERVAL:
        return SnapshotDecision.RECENT
    if past.refused_at is not None and now - past.refused_at < backoff(past.refusals):
        return SnapshotDecision.BACKING_OFF
    return SnapshotDecision.ASK


def backoff(refusals: int) -> timedelta:
    """How long to leave EC2 in peace: doubled by every refusal in a row."""
    if refusals < 1:
        return timedelta()
    doublings = min(refusals - 1, 10)
    return min(INITIAL_BACKOFF * (1 << doublings), MAX_BACKOFF)
