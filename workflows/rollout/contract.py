"""Typed stubs of the activities of fleet rolls, beside `ports`: all that `RolloutWorkflow` sees of them.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.rollout.rules import Member, Rollout, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRollout:
    """Find the members of a rollout, and write them down."""

    rollout_id: str
    """Names this rollout and no later one of the same ID."""
    requested_by: str
    reason: str
    image_id: str | None
    query: str
    workspaces: tuple[str, ...]
    """If there are any, the members; else all that the query matches, or all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPlanned:
    """The members, in the order of their turns."""

    workspaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMembers:
    """Give each of these members the image, and ask for its recreation."""

    rollout_id: str
    members: tuple[Member, ...]
    """As they stand before."""
    image_id: str | None
    requested_by: str
    reason: str
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MembersStarted:
    """The members as they stand after: in flight, or settled at once."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRollout:
    """Look at all members until there is news for the rollout, or the time is up."""

    rollout_id: str
    snapshot: Rollout
    """Its members are only those that are followed."""
    wants_capacity: bool
    """Whether more could begin if fewer were unavailable."""
    seconds: float
    """0 to look once."""


@activity.defn
async def plan_rollout(request: PlanRollout) -> RolloutPlanned:
    """From the database if nothing is chosen; a list that fails, or names what is unknown, is no plan."""
    raise NotImplementedError


@activity.defn
async def start_members(request: StartMembers) -> MembersStarted:
    """Run `request_recreate` on each, under a request ID made of the rollout and the try."""
    raise NotImplementedError


@activity.defn
async def watch_rollout(request: WatchRollout) -> Survey:
    """One query for all members, again and again; changes nothing."""
    raise NotImplementedError
