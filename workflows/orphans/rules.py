"""Which instances and DNS names are orphans, and the action for each. Standard library only.

Compares listed resources with the claims in PostgreSQL. A resource that is missing in the list has no effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from workflows.shared.workspace_ids import WORKSPACE_ID


class OrphanKind(StrEnum):
    """The kinds of resources that can be orphaned."""

    INSTANCE = "instance"
    NAME = "name"
    """A DNS name with this control plane's claim."""


class Ownership(StrEnum):
    """To whom a resource belongs, according to PostgreSQL."""

    CLAIMED = "claimed"
    """The box of an open generation, or the DNS name of an existing workspace."""
    ADOPTABLE = "adoptable"
    """The instance of the open generation's newest launch, which has no recorded instance."""
    ORPHAN = "orphan"
    """Its workspace exists, and no current launch claims it."""
    AHEAD = "ahead"
    """Its generation is newer than the workspace's in PostgreSQL."""
    DELETED = "deleted"
    """Its workspace is deleted."""
    UNKNOWN = "unknown"
    """Its workspace does not exist."""


class OrphanAction(StrEnum):
    """The action for a listed resource, or why there is none."""

    ORPHAN = "orphan"
    """Reported to the workspace's workflow, which terminates it."""
    UNRECORDED_INSTANCE = "unrecorded_instance"
    """Reported to the workspace's workflow, which adopts it."""
    END = "end"
    """The sweep terminates or removes it, because its workspace has no workflow."""
    FOREIGN = "foreign"
    """It belongs to another control plane."""
    UNLABELLED = "unlabelled"
    """It has this control plane's tag and no valid workspace ID: somebody created it by hand."""
    ENDING = "ending"
    """It is terminated, or being terminated."""
    CLAIMED = "claimed"
    PROTECTED = "protected"
    """An operator's tag protects it."""
    AHEAD = "ahead"
    """PostgreSQL may have been restored from a backup; an operator must decide."""
    DOUBTFUL = "doubtful"
    """PostgreSQL does not have its workspace, and may be incomplete."""
    YOUNG = "young"
    """A launch in progress looks the same."""
    SEEN_ONCE = "seen_once"
    """Not enough passes have seen it yet."""
    IN_HAND = "in_hand"
    """An action was taken recently."""
    OVER_CAP = "over_cap"
    """The pass has reached its maximum of actions."""

    @property
    def acts(self) -> bool:
        """Whether the sweep acts."""
        return self in (OrphanAction.ORPHAN, OrphanAction.UNRECORDED_INSTANCE, OrphanAction.END)

    @property
    def shown(self) -> bool:
        """Whether the result of the pass lists it."""
        return self not in (OrphanAction.CLAIMED, OrphanAction.ENDING, OrphanAction.FOREIGN)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanPolicy:
    """When the sweep acts on an orphan, and how many actions a pass takes."""

    min_age: timedelta = timedelta(minutes=5)
    """The slowest launch is recorded within this time."""
    times: int = 2
    """Consecutive passes that must have seen the resource unclaimed."""
    max_actions: int = 5
    """Per pass, so that a defect cannot terminate a fleet."""
    retry_after: timedelta = timedelta(minutes=5)
    """A termination takes a minute or two; until then the sweep does not act on the resource again."""
    sighting_expires_after: timedelta = timedelta(minutes=30)
    """A resource last seen longer ago counts as new: it may have been claimed in between."""
    dry_run: bool = False
    """Report the actions without taking them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedResource:
    """A listed instance or DNS name, with its tags."""

    kind: OrphanKind
    name: str
    """The instance ID, or the DNS name."""
    owner: str | None
    workspace_id: str | None
    generation: int
    attempt: int
    since: datetime | None = None
    """Launch time; None for a DNS record, whose age counts from the first sighting."""
    ending: bool = False
    protected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceClaim:
    """What PostgreSQL claims for one workspace."""

    workspace_id: str
    deleted: bool
    generation: int
    """The newest generation."""
    current: bool
    """Whether that generation is open."""
    attempt: int
    """The newest launch attempt of the open generation; 0 if there is none."""
    instance_id: str | None
    """The instance of that attempt."""
    refused: bool
    """EC2 had no capacity for that attempt, which is final."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What PostgreSQL claims of the listed resources."""

    workspaces: Mapping[str, WorkspaceClaim]
    instances: frozenset[str]
    """The boxes of open generations, regardless of their tags."""
    empty: bool = False
    """PostgreSQL has no workspace at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """How often a resource was seen unclaimed, and when the sweep acted on it."""

    first_seen: datetime
    last_seen: datetime
    times: int
    pass_id: str
    """The pass that saw it last. A repeated call of the same pass counts no new sighting."""
    acted_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanDecision:
    """A listed resource, and the action for it."""

    resource: ListedResource
    action: OrphanAction
    sighting: Sighting | None = None
    """None: the resource is claimed, or does not belong to this control plane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPass:
    """One pass of the sweep, and its policy."""

    pass_id: str
    owner: str
    at: datetime
    policy: OrphanPolicy = field(default_factory=OrphanPolicy)
    used: int = 0
    """The number of actions already taken in this pass."""


def ownership(resource: ListedResource, claims: Claims) -> Ownership:
    """To whom a resource belongs. PostgreSQL has precedence over tags."""
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
        return Ownership.CLAIMED  # the workspace's workflow updates and removes it
    newest = (claim.generation, claim.attempt) if claim.current else None
    if newest == (resource.generation, resource.attempt) and claim.instance_id is None and not claim.refused:
        return Ownership.ADOPTABLE
    return Ownership.ORPHAN


def decide(
    listed: Sequence[ListedResource], claims: Claims, earlier: Mapping[str, Sighting], sweep: SweepPass
) -> tuple[OrphanDecision, ...]:
    """The action for each resource. If there are too many, the ones that have waited longest come first."""
    doubtful = claims.empty or any(
        resource.owner == sweep.owner
        and not resource.ending
        and ownership(resource, claims) is Ownership.AHEAD
        for resource in listed
    )
    decisions = [
        _decide(resource, claims, earlier.get(resource.name), sweep, doubtful=doubtful) for resource in listed
    ]
    acting = sorted((it for it in decisions if it.action.acts), key=lambda it: _order(it, sweep))
    over_cap = {it.resource.name for it in acting[max(0, sweep.policy.max_actions - sweep.used) :]}
    return tuple(_capped(it, sweep, over_cap=it.resource.name in over_cap) for it in decisions)


def _decide(
    resource: ListedResource, claims: Claims, earlier: Sighting | None, sweep: SweepPass, *, doubtful: bool
) -> OrphanDecision:
    if resource.owner != sweep.owner:
        return OrphanDecision(resource=resource, action=OrphanAction.FOREIGN)
    if resource.ending:
        return OrphanDecision(resource=resource, action=OrphanAction.ENDING)
    owned = ownership(resource, claims)
    if owned is Ownership.CLAIMED:
        return OrphanDecision(resource=resource, action=OrphanAction.CLAIMED)
    if resource.workspace_id is None or not WORKSPACE_ID.fullmatch(resource.workspace_id):
        return OrphanDecision(resource=resource, action=OrphanAction.UNLABELLED)
    sighting = _next_sighting(earlier, sweep)
    action = _no_action(resource, owned, sighting, sweep, doubtful=doubtful) or _action(owned)
    return OrphanDecision(resource=resource, action=action, sighting=sighting)


def _no_action(
    resource: ListedResource, owned: Ownership, sighting: Sighting, sweep: SweepPass, *, doubtful: bool
) -> OrphanAction | None:
    """Why the sweep does not act; None if it does."""
    policy = sweep.policy
    if resource.protected:
        return OrphanAction.PROTECTED
    if owned is Ownership.AHEAD:
        return OrphanAction.AHEAD
    if owned is Ownership.UNKNOWN and doubtful:
        return OrphanAction.DOUBTFUL
    if sweep.at - (resource.since or sighting.first_seen) < policy.min_age:
        return OrphanAction.YOUNG
    if sighting.times < policy.times:
        return OrphanAction.SEEN_ONCE
    if sighting.acted_at is not None and not _acted_in_this_pass(sighting, sweep):
        return OrphanAction.IN_HAND if sweep.at - sighting.acted_at < policy.retry_after else None
    return None


def _action(owned: Ownership) -> OrphanAction:
    if owned is Ownership.ORPHAN:
        return OrphanAction.ORPHAN
    return OrphanAction.UNRECORDED_INSTANCE if owned is Ownership.ADOPTABLE else OrphanAction.END


def _next_sighting(earlier: Sighting | None, sweep: SweepPass) -> Sighting:
    """The sighting counted up, unless this pass has counted it before."""
    if earlier is None or sweep.at - earlier.last_seen > sweep.policy.sighting_expires_after:
        return Sighting(first_seen=sweep.at, last_seen=sweep.at, times=1, pass_id=sweep.pass_id)
    if earlier.pass_id == sweep.pass_id:
        return earlier
    return replace(earlier, last_seen=sweep.at, times=earlier.times + 1, pass_id=sweep.pass_id)


def _acted_in_this_pass(sighting: Sighting, sweep: SweepPass) -> bool:
    """Whether an earlier call of this pass, whose response was lost, has acted on it."""
    return sighting.pass_id == sweep.pass_id and sighting.acted_at == sighting.last_seen


def _order(decision: OrphanDecision, sweep: SweepPass) -> tuple[bool, datetime, datetime, str]:
    """Sort key: earlier actions of this pass first, then the longest time without an action."""
    sighting = decision.sighting
    name = decision.resource.name
    never = datetime.min.replace(tzinfo=UTC)
    if sighting is None:
        return True, never, never, name
    return not _acted_in_this_pass(sighting, sweep), sighting.acted_at or never, sighting.first_seen, name


def _capped(decision: OrphanDecision, sweep: SweepPass, *, over_cap: bool) -> OrphanDecision:
    """The decision with the time of the action; no action if the pass has reached its maximum."""
    if over_cap:
        return replace(decision, action=OrphanAction.OVER_CAP)
    if not decision.action.acts or decision.sighting is None or sweep.policy.dry_run:
        return decision
    return replace(decision, sighting=replace(decision.sighting, acted_at=decision.sighting.last_seen))
