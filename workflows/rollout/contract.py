"""The contract of the activities of `RolloutWorkflow`: names, requests and results."""

from dataclasses import dataclass

from temporalio import activity

from workflows.rollout.rules import Member, Rollout, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRollout:
    """Find the members of a rollout, and store them."""

    rollout_id: str
    """Unique, also among rollouts with the same workflow ID."""
    requested_by: str
    reason: str
    image_id: str | None
    query: str
    workspaces: tuple[str, ...]
    """The members, if given. Otherwise all workspaces that the query matches; all if there is no query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlanned:
    """The members, in the order in which they start."""

    workspaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMembers:
    """Set the image of each of these members, and request its recreate."""

    rollout_id: str
    members: tuple[Member, ...]
    """The members as they are before the requests."""
    image_id: str | None
    requested_by: str
    reason: str
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersStarted:
    """The members after the requests: in flight, or with a final outcome."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRollout:
    """Poll the members until something changes for the rollout, or the time is up."""

    rollout_id: str
    snapshot: Rollout
    """The rollout with only the tracked members."""
    wants_capacity: bool
    """Whether more members could start if fewer were unavailable."""
    seconds: float
    """How long to poll; 0: once."""


@activity.defn
async def plan_rollout(request: PlanRollout) -> RolloutPlanned:
    """Find and store the members. A failing query or an unknown workspace fails the activity."""
    raise NotImplementedError


@activity.defn
async def start_members(request: StartMembers) -> MembersStarted:
    """Send each member `request_recreate`, with a request ID derived from rollout and attempt."""
    raise NotImplementedError


@activity.defn
async def watch_rollout(request: WatchRollout) -> Survey:
    """Poll all members with one query. Read-only."""
    raise NotImplementedError
