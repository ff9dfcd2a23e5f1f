"""The contract of the watchdog's activity."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity

from workflows.shared.step_result import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Run one round of the watchdog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogReport:
    """What the watchdog found, and what it requested."""

    running: int
    """Workspaces with intent `run` that have a box."""
    stale: int
    recreating: int
    """Automatic recreates in progress."""
    max_concurrent: int
    """The limit of concurrent automatic recreates."""
    frozen: str | None
    """Why automatic recreates are frozen; None if they are not."""
    requested: tuple[str, ...]
    """The workspaces for which this round requested a recreate."""
    waiting: int
    """More workspaces that need one, beyond the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFleetPermit:
    """Request a permit for an automatic recreate."""

    workspace_id: str
    generation: int
    """The generation that the recreate would open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPermit(StepResult):
    """Whether the fleet allows this workspace an automatic recreate now."""

    granted: bool
    frozen: bool = False
    """Why it was refused: the fleet is frozen (true), or the limit of concurrent recreates is reached."""
    reason: str = ""
    retry_after: timedelta = timedelta()
    """How long to wait before the next request."""


@activity.defn
async def watch(request: Watch) -> WatchdogReport:
    """Find the boxes that need a recreate in one query, and request it by signal; none while frozen."""
    raise NotImplementedError


@activity.defn
async def request_fleet_permit(request: RequestFleetPermit) -> FleetPermit:
    """Check the fleet, and reserve a slot for an automatic recreate. A retry gets the same slot."""
    raise NotImplementedError
