"""Typed stubs of the activities of fleet rolls, beside `ports`: all that `FleetWorkflow` sees of them.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.roll import Member, Roll, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRoll:
    """Find the members of a roll, and write them down."""

    roll: str
    """Names this roll and no later one of the same ID."""
    requested_by: str
    reason: str
    image_id: str | None
    query: str
    workspaces: tuple[str, ...]
    """If there are any, the members; else all that the query matches, or all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RollPlanned:
    """The members, in the order of their turns."""

    workspaces: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeTurns:
    """Give each of these members the image, and ask for its recreation."""

    roll: str
    members: tuple[Member, ...]
    """As they stand before."""
    image_id: str | None
    requested_by: str
    reason: str
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsTaken:
    """The members as they stand after: in flight, or settled at once."""

    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRoll:
    """Look at all members until there is news for the roll, or the time is up."""

    roll: str
    standing: Roll
    """Its members are only those that are followed."""
    wants_room: bool
    """Whether more could begin if fewer were unavailable."""
    seconds: float
    """0 to look once."""


@activity.defn
async def plan_roll(request: PlanRoll) -> RollPlanned:
    """From the database if nothing is chosen; a list that fails, or names what is unknown, is no plan."""
    raise NotImplementedError


@activity.defn
async def take_turns(request: TakeTurns) -> TurnsTaken:
    """Run `request_recreate` on each, under a request ID made of the roll and the try."""
    raise NotImplementedError


@activity.defn
async def watch_roll(request: WatchRoll) -> Survey:
    """One query for all members, again and again; changes nothing."""
    raise NotImplementedError
