"""Which instances and DNS names are orphans, and what is to be done about each. Standard library only.

Judges what was listed beside what the record claims. It neither lists nor acts, and what is missing from a
list is none of its business: only what was seen leads to anything.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from workflows.shared.workspace_ids import WORKSPACE_ID


class OrphanKind(StrEnum):
    """What can be left behind."""

    INSTANCE = "instance"
    NAME = "name"
    """A DNS name that carries our claim."""


class Ownership(StrEnum):
    """Whose something is, by the record's word."""

    CLAIMED = "claimed"
    """The box of an open generation, or the name of a workspace that exists."""
    ADOPTABLE = "adoptable"
    """The newest launch of the open generation has no instance on the record, and this is it."""
    ORPHAN = "orphan"
    """Of a workspace that exists, and of none of its launches that count."""
    AHEAD = "ahead"
    """Of a generation that the record does not have yet: the record is older than the box."""
    DELETED = "deleted"
    """Its workspace is deleted."""
    UNKNOWN = "unknown"
    """There is no such workspace."""


class OrphanAction(StrEnum):
    """What is done about one that was listed, or why nothing is."""

    ORPHAN = "orphan"
    """Reported to the workspace's workflow, which terminates it."""
    UNRECORDED_INSTANCE = "unrecorded_instance"
    """Reported to the workspace's workflow, which adopts it."""
    END = "end"
    """Ended by the sweep itself: no workflow can."""
    FOREIGN = "foreign"
    """Another owner's."""
    UNLABELLED = "unlabelled"
    """Ours by its owner, and of no workspace that could be: a human made it."""
    ENDING = "ending"
    """It is being terminated already, or is."""
    CLAIMED = "claimed"
    PROTECTED = "protected"
    """A human's tag keeps it."""
    AHEAD = "ahead"
    """The record may have been restored; a human decides."""
    DOUBTFUL = "doubtful"
    """The record does not know its workspace, and there is reason to doubt the record."""
    YOUNG = "young"
    """A launch that is on its way looks the same."""
    SEEN_ONCE = "seen_once"
    IN_HAND = "in_hand"
    """Something was done about it a moment ago."""
    OVER_CAP = "over_cap"
    """Enough was done in this pass."""

    @property
    def acts(self) -> bool:
        """Whether something is done."""
        return self in (OrphanAction.ORPHAN, OrphanAction.UNRECORDED_INSTANCE, OrphanAction.END)

    @property
    def shown(self) -> bool:
        """Whether people should see it in the pass's result."""
        return self not in (OrphanAction.CLAIMED, OrphanAction.ENDING, OrphanAction.FOREIGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanPolicy:
    """How sure the sweep must be, and how much it does at once."""

    min_age: timedelta = timedelta(minutes=5)
    """The slowest launch is on the record by then."""
    times: int = 2
    """Passes in a row that must have seen it unclaimed."""
    max_actions: int = 5
    """In one pass: a mistake of ours must not end a fleet."""
    retry_after: timedelta = timedelta(minutes=5)
    """A termination takes a minute or two; who is reported is not reported again before."""
    sighting_expires_after: timedelta = timedelta(minutes=30)
    """What was seen longer ago than this was perhaps claimed in between."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedResource:
    """One that was listed, and what it says of itself."""

    kind: OrphanKind
    name: str
    """The instance ID, or the DNS name."""
    owner: str | None
    workspace_id: str | None
    generation: int
    attempt: int
    since: datetime | None = None
    """When it was launched; a DNS record doesn't say, and is as old as its first sighting."""
    ending: bool = False
    protected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceClaim:
    """What the record says of one workspace."""

    workspace_id: str
    deleted: bool
    generation: int
    """The newest one that was ever opened."""
    current: bool
    """Whether it is open."""
    attempt: int
    """The open generation's newest launch; 0 if there is none."""
    instance_id: str | None
    """Of that launch."""
    refused: bool
    """EC2 had no room for that launch: it is not called again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What the record says of all that was listed."""

    workspaces: Mapping[str, WorkspaceClaim]
    instances: frozenset[str]
    """The boxes of open generations, whatever their tags say by now."""
    empty: bool = False
    """There is no workspace on the record at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """How often something was seen unclaimed, and what was done about it."""

    first_seen: datetime
    last_seen: datetime
    times: int
    pass_id: str
    """Who saw it last: a pass that is repeated sees nothing new."""
    acted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanDecision:
    """One that was listed, and what becomes of it."""

    resource: ListedResource
    action: OrphanAction
    sighting: Sighting | None = None
    """None: somebody claims it, or it is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPass:
    """One look, and the rules that it goes by."""

    pass_id: str
    owner: str
    at: datetime
    policy: OrphanPolicy = field(default_factory=OrphanPolicy)
    used: int = 0
    """How much was done in this pass already."""


def ownership(resource: ListedResource, claims: Claims) -> Ownership:
    """Whose it is. The record's word goes before what tags say."""
    if resource.name in claims.instances:
        return Ownership.CLAIMED
    claim = claims.workspaces.get(resource.workspace_id or "")
    if claim is None:
        return Ownership.UNKNOWN
    if claim.deleted:
        return Ownership.DELETED
    if resource.generation > claim.generation:
        return Ownership.AHEAD
    if resource.kind is OrphanKind.NAME:
        return Ownership.CLAIMED  # its next address, or its deletion, is the workflow's matter
    newest = (claim.generation, claim.attempt) if claim.current else None
    if newest == (resource.generation, resource.attempt) and claim.instance_id is None and not claim.refused:
        return Ownership.ADOPTABLE
    return Ownership.ORPHAN


def decide(
    listed: Sequence[ListedResource], claims: Claims, earlier: Mapping[str, Sighting], look: SweepPass
) -> tuple[OrphanDecision, ...]:
    """What becomes of each. Of those about which something is to be done, the longest waiting go first."""
    doubtful = claims.empty or any(
        found.owner == look.owner and not found.ending and ownership(found, claims) is Ownership.AHEAD
        for found in listed
    )
    judged = [_judged(found, claims, earlier.get(found.name), look, doubtful=doubtful) for found in listed]
    acting = sorted((one for one in judged if one.action.acts), key=lambda one: _turn(one, look))
    late = {one.resource.name for one in acting[max(0, look.policy.max_actions - look.used) :]}
    return tuple(_settled(one, look, late=one.resource.name in late) for one in judged)


def _judged(
    resource: ListedResource, claims: Claims, earlier: Sighting | None, look: SweepPass, *, doubtful: bool
) -> OrphanDecision:
    if resource.owner != look.owner:
        return OrphanDecision(resource=resource, action=OrphanAction.FOREIGN)
    if resource.ending:
        return OrphanDecision(resource=resource, action=OrphanAction.ENDING)
    whose = ownership(resource, claims)
    if whose is Ownership.CLAIMED:
        return OrphanDecision(resource=resource, action=OrphanAction.CLAIMED)
    if resource.workspace_id is None or not WORKSPACE_ID.fullmatch(resource.workspace_id):
        return OrphanDecision(resource=resource, action=OrphanAction.UNLABELLED)
    seen = _seen(earlier, look)
    verdict = _left(resource, whose, seen, look, doubtful=doubtful) or _action(whose)
    return OrphanDecision(resource=resource, action=verdict, sighting=seen)


def _left(
    resource: ListedResource, whose: Ownership, seen: Sighting, look: SweepPass, *, doubtful: bool
) -> OrphanAction | None:
    """Why nothing is done about it; None if something is."""
    policy = look.policy
    if resource.protected:
        return OrphanAction.PROTECTED
    if whose is Ownership.AHEAD:
        return OrphanAction.AHEAD
    if whose is Ownership.UNKNOWN and doubtful:
        return OrphanAction.DOUBTFUL
    if look.at - (resource.since or seen.first_seen) < policy.min_age:
        return OrphanAction.YOUNG
    if seen.times < policy.times:
        return OrphanAction.SEEN_ONCE
    if seen.acted_at is not None and not _acted_now(seen, look):
        return OrphanAction.IN_HAND if look.at - seen.acted_at < policy.retry_after else None
    return None


def _action(whose: Ownership) -> OrphanAction:
    if whose is Ownership.ORPHAN:
        return OrphanAction.ORPHAN
    return OrphanAction.UNRECORDED_INSTANCE if whose is Ownership.ADOPTABLE else OrphanAction.END


def _seen(earlier: Sighting | None, look: SweepPass) -> Sighting:
    """One sighting more, unless this very pass had it already."""
    if earlier is None or look.at - earlier.last_seen > look.policy.sighting_expires_after:
        return Sighting(first_seen=look.at, last_seen=look.at, times=1, pass_id=look.pass_id)
    if earlier.pass_id == look.pass_id:
        return earlier
    return replace(earlier, last_seen=look.at, times=earlier.times + 1, pass_id=look.pass_id)


def _acted_now(seen: Sighting, look: SweepPass) -> bool:
    """Whether it was this very pass, whose answer got lost, that did something about it."""
    return seen.pass_id == look.pass_id and seen.acted_at == seen.last_seen


def _turn(one: OrphanDecision, look: SweepPass) -> tuple[bool, datetime, datetime, str]:
    seen = one.sighting
    never = datetime.min.replace(tzinfo=UTC)
    if seen is None:
        return True, never, never, one.resource.name
    return not _acted_now(seen, look), seen.acted_at or never, seen.first_seen, one.resource.name


def _settled(one: OrphanDecision, look: SweepPass, *, late: bool) -> OrphanDecision:
    """Put off what is too much for one pass, and note what is done."""
    if late:
        return replace(one, action=OrphanAction.OVER_CAP)
    if not one.action.acts or one.sighting is None or look.policy.dry_run:
        return one
    return replace(one, sighting=replace(one.sighting, acted_at=one.sighting.last_seen))
