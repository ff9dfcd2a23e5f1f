"""The contract of the activities of data volumes: names, requests and results."""

from dataclasses import dataclass

from temporalio import activity

from workflows.shared.step_result import StepResult


@dataclass(frozen=True, slots=True, kw_only=True)
class DetachVolume:
    """Detach the data volume from earlier boxes. The box of this launch attempt may keep it."""

    workspace_id: str
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotVolume:
    """Request a snapshot of the data volume, if one is due."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachVolume:
    """Wait for the instance to run, and attach the data volume; create the volume if there is none."""

    workspace_id: str
    generation: int
    attempt: int
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteVolume:
    """Delete the data volume of a deleted workspace."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDetached(StepResult):
    """The data volume is attached to no earlier box, or does not exist yet."""

    kept: bool = False
    """The volume is attached to the current generation's box, and stays there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult(StepResult):
    """Whether a snapshot was requested; otherwise `covered` or `code` says why not."""

    snapshot_id: str | None = None
    """The snapshot that this call requested."""
    covered: bool = False
    """No snapshot was needed: one is pending or recent, or there is no volume."""
    code: str = ""
    """Why there is no snapshot: EC2's error, or the backoff after one."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachResult(StepResult):
    """The result of attaching: exactly one of `volume_id`, `gone` and `occupied_by` is set."""

    volume_id: str | None = None
    gone: bool = False
    """The instance ended instead of running."""
    detail: str = ""
    occupied_by: str | None = None
    """The volume is attached to this other instance: detach again."""


@activity.defn
async def detach_volume(request: DetachVolume) -> VolumeDetached:
    """Detach the volume from Onebox's boxes only, and poll until it is available.

    Detaches by force only from a box that was declared dead.
    """
    raise NotImplementedError


@activity.defn
async def snapshot_volume(request: SnapshotVolume) -> SnapshotResult:
    """Request a snapshot, unless one is pending or younger than 15 min. EC2's refusal is a result."""
    raise NotImplementedError


@activity.defn
async def attach_volume(request: AttachVolume) -> AttachResult:
    """Find the volume by record or tag, else create it with the stored ClientToken; then attach it."""
    raise NotImplementedError


@activity.defn
async def delete_volume(request: DeleteVolume) -> None:
    """Delete the volume, found by record and by tag; its snapshots too if the spec says so."""
    raise NotImplementedError
