"""Whether a snapshot of a data volume is due. Standard library only.

Judges what was asked before; it asks for nothing, and time is an argument.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

SPACING = timedelta(minutes=15)
"""Recreates come in bursts; within one the first snapshot has all that there is to save."""

FIRST_PAUSE = timedelta(seconds=15)
"""EC2 refuses a second snapshot of one volume within 15 s (`SnapshotCreationPerVolumeRateExceeded`)."""

LONGEST_PAUSE = SPACING

UNLISTED_MEANS_NEVER_MADE_AFTER = timedelta(minutes=5)
"""EC2's listings are late by minutes at most: then a call whose answer was lost has made none."""


class Verdict(StrEnum):
    """What is to be done about the wish for a snapshot."""

    ASK = "ask"
    PENDING = "pending"
    """One is under way: it serves this wish as well."""
    RECENT = "recent"
    """One was asked for within the spacing, which serves this wish as well."""
    BACKING_OFF = "backing_off"
    """EC2 has refused one, and is left in peace for a while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What is known of the snapshots of one volume."""

    pending: bool = False
    """One is under way, or may be: its call's answer was lost."""
    asked_at: datetime | None = None
    """When the newest was asked for that exists or may exist, whatever became of it."""
    refusals: int = 0
    """In a row, since one was last taken."""
    refused_at: datetime | None = None


def judge(past: Past, now: datetime) -> Verdict:
    """What to do about the wish for a snapshot now."""
    if past.pending:
        return Verdict.PENDING
    if past.asked_at is not None and now - past.asked_at < SPACING:
        return Verdict.RECENT
    if past.refused_at is not None and now - past.refused_at < pause_after(past.refusals):
        return Verdict.BACKING_OFF
    return Verdict.ASK


def pause_after(refusals: int) -> timedelta:
    """How long to leave EC2 in peace: doubled by every refusal in a row."""
    if refusals < 1:
        return timedelta()
    doublings = min(refusals - 1, 10)
    return min(FIRST_PAUSE * (1 << doublings), LONGEST_PAUSE)
