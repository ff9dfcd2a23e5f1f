"""The public contract of `WorkspaceWorkflow`: payloads of its signals, updates and queries.

Watchdogs, operators and the temporal CLI depend on every name here.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from workflows.shared.payloads import Message, Name, Reason, read
from workflows.workspace.enums import BoxEventKind, CanaryPolicy, Phase, SnapshotPolicy
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import Condition, LastError


class RecreateRequest(Message):
    """Request a new box. Every member is optional; without any, the request is automatic."""

    reason: Reason = ""
    requested_by: Name = ""
    """The sender: `watchdog`, `admin:alice`. Manual if it starts with `admin`, else automatic."""
    observed_generation: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] | None = None
    """The generation that the sender wants replaced. A request about an earlier one is `stale`."""
    request_id: Name | None = None
    """Idempotency key: a repeated ID gets the earlier outcome."""
    force: bool = False
    """Bypass an exhausted budget, or replace a generation that awaits registration. Operators only."""


class IntentRequest(Message):
    """Request to stop, start or delete the workspace."""

    reason: Reason = ""
    requested_by: Name = ""
    request_id: Name | None = None


class DeclareDead(Message):
    """An operator's confirmation that a box is gone whose termination Onebox cannot confirm."""

    instance_id: Annotated[str, Field(pattern=r"^i-[0-9a-f]{8,17}$")]
    reason: Reason = ""
    requested_by: Name = ""
    request_id: Name | None = None


class Freeze(Message):
    """Defer automatic recreates for a limited time."""

    reason: Reason = ""
    requested_by: Name = ""
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    """How long; 0 ends the freeze."""


class BoxEvent(Message):
    """A state change of a box that the register API, a scan or the orphan sweep detected."""

    kind: BoxEventKind
    generation: int
    at: AwareDatetime
    detail: Reason = ""


class VolumeType(StrEnum):
    """The supported EC2 volume types."""

    GP3 = "gp3"
    GP2 = "gp2"
    IO2 = "io2"


class DataVolume(Message):
    """A volume that outlives the workspace's boxes. Changes have no effect once the volume exists."""

    size_gib: Annotated[int, Field(ge=1, le=16_384)] = 20
    type: VolumeType = VolumeType.GP3
    iops: Annotated[int, Field(ge=100, le=64_000)] | None = None
    """Optional for `gp3` (default and minimum 3000), required for `io2`, not allowed for `gp2`."""
    throughput_mibps: Annotated[int, Field(ge=125, le=1000)] | None = None
    """Only for `gp3`."""
    encrypted: bool = True
    """With the account's default key."""

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.iops is None and self.type is VolumeType.IO2:
            raise ValueError("io2 requires iops")
        if self.iops is not None and self.type is VolumeType.GP2:
            raise ValueError("gp2 does not support iops")
        if self.iops is not None and self.type is VolumeType.GP3 and not 3000 <= self.iops <= 16_000:
            raise ValueError("gp3 supports 3000 to 16000 iops")
        if self.type is VolumeType.IO2 and self.size_gib < 4:
            raise ValueError("io2 requires at least 4 GiB")
        if self.throughput_mibps is not None and self.type is not VolumeType.GP3:
            raise ValueError("only gp3 supports throughput_mibps")
        return self


class WorkspaceSpec(Message):
    """Overrides of the worker's settings for this workspace. `{}` overrides none."""

    image_id: Annotated[str, Field(max_length=200)] | None = None
    instance_types: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=20)
    """In order of preference; the next one is tried on a definitive capacity error."""
    subnet_ids: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=20)
    """In order of preference. Each subnet is in one availability zone."""
    security_group_ids: tuple[Name, ...] | None = Field(default=None, max_length=20)
    runtime_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    instance_deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """From the launch to the instance running."""
    register_deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """From the instance running to its first authenticated heartbeat."""
    canary: CanaryPolicy | None = None
    data_volume: DataVolume | None = None
    """An existing volume stays until the workspace is deleted, also if a later spec omits it."""
    snapshot: SnapshotPolicy | None = None
    """When a snapshot of the data volume is requested: `off` (default) or `recreate`."""
    delete_snapshots: bool | None = None
    """Whether deleting the workspace deletes its snapshots too. By default they stay as a backup."""


class RequestOutcome(Message):
    """The outcome of a request. It is final."""

    request_id: str
    kind: RequestKind
    outcome: OutcomeKind
    generation: int
    """The generation that serves the request, or the current one where none does."""
    detail: str
    retry_at: datetime | None = None
    requested_by: str = ""
    reason: str = ""
    observed_generation: int | None = None
    force: bool = False
    at: datetime

    @classmethod
    def of(cls, request: Request) -> "RequestOutcome":
        """The public form of a decided request."""
        return cls(
            request_id=request.request_id,
            kind=request.kind,
            outcome=request.outcome,
            generation=request.generation,
            detail=request.detail,
            retry_at=request.retry_at,
            requested_by=request.requested_by,
            reason=request.reason,
            observed_generation=request.observed_generation,
            force=request.force,
            at=request.at,
        )


class WorkspaceStatus(Message):
    """The result of the `status` query. Later heartbeats than the first are in PostgreSQL only."""

    workspace_id: str
    phase: Phase
    generation: int
    instance_id: str | None
    private_ip: str | None
    dns_name: str | None
    volume_id: str | None = None
    """The data volume, while it is attached to the box."""
    recreates: int
    """Recreates accepted in the last 24 h."""
    last_error: LastError | None
    conditions: tuple[Condition, ...]
    waiting_for: str
    """What the workflow does or waits for now."""


def parse_request(kind: RequestKind, payload: Sequence[object], *, request_id: str) -> RequestInput:
    """The request in a message's payload. `request_id` is used where the payload has none.

    Raises `InvalidPayload`.
    """
    if kind is RequestKind.RECREATE:
        recreate = read(RecreateRequest, payload)
        return RequestInput(
            kind=kind,
            request_id=recreate.request_id or request_id,
            requested_by=recreate.requested_by,
            reason=recreate.reason,
            observed_generation=recreate.observed_generation,
            force=recreate.force,
        )
    if kind is RequestKind.DECLARE_DEAD:
        dead = read(DeclareDead, payload)
        return RequestInput(
            kind=kind,
            request_id=dead.request_id or request_id,
            requested_by=dead.requested_by,
            reason=dead.reason,
            instance_id=dead.instance_id,
        )
    intent = read(IntentRequest, payload)
    return RequestInput(
        kind=kind,
        request_id=intent.request_id or request_id,
        requested_by=intent.requested_by,
        reason=intent.reason,
    )
