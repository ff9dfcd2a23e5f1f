"""The contract of the activities of the orphan sweep: names, requests and results."""

from dataclasses import dataclass

from temporalio import activity

from workflows.orphans.rules import OrphanAction, OrphanKind


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOrphans:
    """Find instances or DNS names with this control plane's tags that no generation claims."""

    pass_id: str
    """A repeated call with the same ID counts no new sighting."""
    used: int = 0
    """The number of actions already taken in this pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanSeen:
    """An unclaimed resource, and the action for it."""

    kind: OrphanKind
    name: str
    workspace_id: str
    generation: int
    attempt: int
    action: OrphanAction
    times: int
    """The number of consecutive passes that saw it unclaimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphansFound:
    """The resources found, with the actions for them."""

    looked_at: int
    """How many have this control plane's tags, claimed or not."""
    actions: dict[OrphanAction, int]
    orphans: tuple[OrphanSeen, ...]
    """A bounded list of those that an operator should see; those with an action come first."""
    dry_run: bool
    """`actions` says what the sweep would do; it does nothing."""


@activity.defn
async def find_orphan_instances(request: FindOrphans) -> OrphansFound:
    """List instances with this control plane's tag, classify them in one transaction, signal workflows."""
    raise NotImplementedError


@activity.defn
async def find_orphan_names(request: FindOrphans) -> OrphansFound:
    """List the zone's DNS names with this control plane's claim, and classify them in one transaction."""
    raise NotImplementedError
