"""Whether automatic recreates may begin, as far as the whole fleet is concerned. Standard library only.

One box that is silent is a box's trouble; many at once are somebody else's: the register API's, the
network's, AWS's. Recreating them would make it worse. Judges figures that others have counted.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor

FREEZE_DURATION = timedelta(seconds=60)
"""A freeze ends by itself; looking again costs a query, and some events in the workflow's history."""

CAPACITY_RETRY_AFTER = timedelta(seconds=30)
"""A recreate takes a minute or two: places become free often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPolicy:
    """How much at once is too much."""

    freeze_share: float = 0.20
    """Of the workspaces that are meant to run. More of them stale at once, and nothing automatic begins."""
    freeze_min_workspaces: int = 5
    """In a fleet smaller than this, a share says nothing."""
    max_concurrent_share: float = 0.10
    min_concurrent_recreates: int = 1
    max_concurrent_recreates: int = 20
    stale: timedelta = timedelta(seconds=90)
    """Without a beat for so long, a box is stale; so is the taking in of beats itself."""

    def max_concurrent(self, running: int) -> int:
        """How many automatic recreates may be under way in a fleet of this size."""
        share = floor(running * self.max_concurrent_share)
        return max(self.min_concurrent_recreates, min(share, self.max_concurrent_recreates))


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCounts:
    """What is counted of the fleet."""

    now: datetime
    running: int
    """Workspaces that are meant to run, and have been given a box."""
    stale: int
    """Of them, those whose box was silent for too long."""
    recreating: int
    """Automatic recreates under way."""
    intake_at: datetime | None
    """When a register API last could have taken a beat in; None if none ever ran."""
    intake_since: datetime | None
    """Since when it could without a gap; None if it always could."""
    fleet_stale_at: datetime | None = None
    """When too many were last seen stale at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDecision:
    """What the figures amount to."""

    frozen: str | None
    """Why nothing automatic begins; None if it may."""
    max_concurrent: int
    """How many automatic recreates may be under way."""
    free: int
    """How many more may begin now; 0 while it is frozen."""
    fleet_stale: bool = False
    """Too many are stale at once: to be remembered, since those that recover do so one after the other."""


def decide(figures: FleetCounts, policy: FleetPolicy) -> FleetDecision:
    """Freeze, or say how many more recreates may begin."""
    concurrent = policy.max_concurrent(figures.running)
    stale = _stale(figures, policy)
    frozen = _intake(figures, policy) or stale or _recovering(figures, policy)
    free = 0 if frozen else max(0, concurrent - figures.recreating)
    return FleetDecision(frozen=frozen, max_concurrent=concurrent, free=free, fleet_stale=stale is not None)


def _intake(figures: FleetCounts, policy: FleetPolicy) -> str | None:
    if figures.intake_at is not None and figures.now - figures.intake_at >= policy.stale:
        return (
            f"no beats are taken in since {figures.intake_at:%H:%M:%S} UTC: no register API runs, or none "
            "reaches the database"
        )
    since = figures.intake_since
    if since is not None and figures.now - since < policy.stale:
        until = since + policy.stale
        return (
            f"beats are taken in again since {since:%H:%M:%S} UTC: boxes have until {until:%H:%M:%S} to beat"
        )
    return None


def _stale(figures: FleetCounts, policy: FleetPolicy) -> str | None:
    if (
        figures.running < policy.freeze_min_workspaces
        or figures.stale <= figures.running * policy.freeze_share
    ):
        return None
    return (
        f"{figures.stale} of {figures.running} workspaces are stale at once, over {policy.freeze_share:.0%}: "
        "that is not a box's trouble"
    )


def _recovering(figures: FleetCounts, policy: FleetPolicy) -> str | None:
    """The last of them to beat again were silent for longest: they are not to be taken for dead."""
    seen = figures.fleet_stale_at
    if seen is None or figures.now - seen >= policy.stale:
        return None
    until = seen + policy.stale
    return (
        f"many workspaces were stale at once until {seen:%H:%M:%S} UTC: boxes have until {until:%H:%M:%S} "
        "to beat again"
    )
