"""Typed stubs of the activities of the orphan sweep, beside `ports`.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.orphans.rules import OrphanAction, OrphanKind
from workflows.workspace.events import OrphansTerminated


@dataclass(frozen=True, slots=True, kw_only=True)
class FindOrphans:
    """Look once for what carries our tags and nobody claims."""

    pass_id: str
    """A look that is repeated under the same one sees nothing new."""
    used: int = 0
    """How much was done in this pass before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanSeen:
    """One that nobody claims, and what becomes of it."""

    kind: OrphanKind
    name: str
    workspace_id: str
    generation: int
    attempt: int
    action: OrphanAction
    times: int
    """In how many passes it was seen so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphansFound:
    """What one look saw."""

    looked_at: int
    """How many carry our tags, claimed or not."""
    actions: dict[OrphanAction, int]
    orphans: tuple[OrphanSeen, ...]
    """Those that people should see, bounded; first those about which something is done."""
    dry_run: bool
    """The verdicts say what would be done; nothing is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateOrphans:
    """Terminate instances that nobody claims, if still nobody does."""

    workspace_id: str
    instances: tuple[str, ...]
    generation: int | None = None
    """The workspace's newest one, if its workflow asks. None: the sweep asks, for a workspace that has no
    workflow, since it is deleted or not on the record."""


@activity.defn
async def find_orphan_instances(request: FindOrphans) -> OrphansFound:
    """List all instances with our owner tag, judge them in one transaction, report to the workflows."""
    raise NotImplementedError


@activity.defn
async def find_orphan_names(request: FindOrphans) -> OrphansFound:
    """List the names of the zone that carry our claim, and judge them in one transaction."""
    raise NotImplementedError


@activity.defn
async def terminate_orphans(request: TerminateOrphans) -> OrphansTerminated:
    """Terminate those that are still there, ours, unprotected, and claimed by nobody."""
    raise NotImplementedError
