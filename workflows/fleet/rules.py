"""Circuit breaker and concurrency limit for automatic recreates. Standard library only.

One stale box is the box's problem. Many stale boxes at once point to the register API, the network or AWS.
Recreating them would make it worse.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor

FREEZE_DURATION = timedelta(seconds=60)
"""After this time the workflow checks again, which costs a query and some events in its history."""

CAPACITY_RETRY_AFTER = timedelta(seconds=30)
"""A recreate takes a minute or two, so a slot becomes free soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPolicy:
    """The limits of automatic recreates."""

    freeze_share: float = 0.20
    """Automatic recreates freeze if more than this share of the running workspaces is stale."""
    freeze_min_workspaces: int = 5
    """Smaller fleets never freeze because of the share."""
    max_concurrent_share: float = 0.10
    min_concurrent_recreates: int = 1
    max_concurrent_recreates: int = 20
    stale: timedelta = timedelta(seconds=90)
    """Without a heartbeat for this long a box is stale. The heartbeat intake has the same limit."""

    def max_concurrent(self, running: int) -> int:
        """How many automatic recreates may be in progress in a fleet of this size."""
        share = floor(running * self.max_concurrent_share)
        return max(self.min_concurrent_recreates, min(share, self.max_concurrent_recreates))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounts:
    """The counts of the fleet that the decision needs."""

    now: datetime
    running: int
    """Workspaces with intent `run` that have a box."""
    stale: int
    """Running workspaces without a heartbeat for too long."""
    recreating: int
    """Automatic recreates in progress."""
    intake_at: datetime | None
    """When a register API was last able to accept heartbeats; None if none ever ran."""
    intake_since: datetime | None
    """Since when heartbeats were accepted without a gap; None if there never was one."""
    fleet_stale_at: datetime | None = None
    """When too many workspaces were last stale at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDecision:
    """Whether automatic recreates are frozen, and how many more may start."""

    frozen: str | None
    """Why automatic recreates are frozen; None if they are not."""
    max_concurrent: int
    """How many automatic recreates may be in progress."""
    free: int
    """How many more may start now; 0 while frozen."""
    fleet_stale: bool = False
    """Too many workspaces are stale at once. The caller stores the time, since they recover one by one."""


def decide(counts: FleetCounts, policy: FleetPolicy) -> FleetDecision:
    """Decide whether automatic recreates are frozen, and how many more may start."""
    concurrent = policy.max_concurrent(counts.running)
    stale = _fleet_stale(counts, policy)
    frozen = _intake_down(counts, policy) or stale or _recovering(counts, policy)
    free = 0 if frozen else max(0, concurrent - counts.recreating)
    return FleetDecision(frozen=frozen, max_concurrent=concurrent, free=free, fleet_stale=stale is not None)


def _intake_down(counts: FleetCounts, policy: FleetPolicy) -> str | None:
    if counts.intake_at is not None and counts.now - counts.intake_at >= policy.stale:
        return (
            f"no heartbeats have been accepted since {counts.intake_at:%H:%M:%S} UTC: no register API runs, "
            "or none reaches PostgreSQL"
        )
    since = counts.intake_since
    if since is not None and counts.now - since < policy.stale:
        return (
            f"heartbeats are accepted again since {since:%H:%M:%S} UTC: boxes have until "
            f"{since + policy.stale:%H:%M:%S} to send one"
        )
    return None


def _fleet_stale(counts: FleetCounts, policy: FleetPolicy) -> str | None:
    if counts.running < policy.freeze_min_workspaces or counts.stale <= counts.running * policy.freeze_share:
        return None
    return (
        f"{counts.stale} of {counts.running} workspaces are stale at once, over {policy.freeze_share:.0%}: "
        "the cause is not a single box"
    )


def _recovering(counts: FleetCounts, policy: FleetPolicy) -> str | None:
    """Give the boxes that recover last the time to send a heartbeat."""
    stale_at = counts.fleet_stale_at
    if stale_at is None or counts.now - stale_at >= policy.stale:
        return None
    return (
        f"many workspaces were stale at once until {stale_at:%H:%M:%S} UTC: boxes have until "
        f"{stale_at + policy.stale:%H:%M:%S} to send a heartbeat"
    )
