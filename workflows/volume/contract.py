"""Typed stubs of the activities of data volumes, beside `ports`.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.workspace.events import AttachResult, SnapshotResult, VolumeDetached


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachVolume:
    """See that no box of before has the data volume; the box of this very launch may keep it."""

    workspace_id: str
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotVolume:
    """Ask for a snapshot of the data volume, if one is due."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVolume:
    """Wait for the instance to run, and give it the data volume; create that if it was never there."""

    workspace_id: str
    generation: int
    attempt: int
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVolume:
    """Delete the data volume of a deleted workspace."""

    workspace_id: str
    generation: int


@activity.defn
async def detach_volume(request: DetachVolume) -> VolumeDetached:
    """Detach it from our boxes only, by force only from one that was declared dead, until it is available."""
    raise NotImplementedError


@activity.defn
async def snapshot_volume(request: SnapshotVolume) -> SnapshotResult:
    """Never a second one within 15 min or beside a pending one; a refusal is a result, not an error."""
    raise NotImplementedError


@activity.defn
async def attach_volume(request: AttachVolume) -> AttachResult:
    """Find it by record or tag, else CreateVolume with the durable ClientToken; then attach it."""
    raise NotImplementedError


@activity.defn
async def delete_volume(request: DeleteVolume) -> None:
    """Delete it, by record and by tag; its snapshots too if the spec says so."""
    raise NotImplementedError
