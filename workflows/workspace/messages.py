"""The public contract: payloads of signals, updates and queries, names, IDs and search attributes.

Outsiders (watchdogs, admins, the temporal CLI) depend on every name here; it decides nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator
from temporalio.common import SearchAttributeKey

from workflows.delegation.rules import DelegationState
from workflows.workspace.events import BoxEventKind
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind
from workflows.workspace.state import CanaryPolicy, Condition, LastError, Phase, SnapshotPolicy

WORKFLOW_TYPE = "WorkspaceWorkflow"
TASK_QUEUE = "workspaces"
EC2_TASK_QUEUE = "workspaces-ec2"
"""EC2 mutations only, so that one server-side rate limit covers all workers."""

WATCHDOG_TYPE = "WatchdogWorkflow"
WATCHDOG_SCHEDULE = "onebox-watchdog"
"""The schedule's ID: pausing it in the UI or the CLI pauses the watchdog."""

DELEGATION_TYPE = "DelegationWorkflow"
DELEGATIONS_TASK_QUEUE = "delegations"
"""Apart from the workspaces': a hundred slow targets must not hold up a recreate."""

SWEEP_TYPE = "SweepWorkflow"
SWEEP_SCHEDULE = "onebox-sweep"

REPAIR_TYPE = "RepairWorkflow"
REPAIR_SCHEDULE = "onebox-rescue"

PHASE = SearchAttributeKey.for_keyword("WorkspacePhase")
INSTANCE = SearchAttributeKey.for_keyword("WorkspaceInstance")
ERROR_CODE = SearchAttributeKey.for_keyword("WorkspaceErrorCode")
REASON = SearchAttributeKey.for_keyword("WorkspaceReason")
"""Why it is degraded or failed, or cannot go on: the reason of that condition."""
GENERATION = SearchAttributeKey.for_int("WorkspaceGeneration")
DELEGATION_STATE = SearchAttributeKey.for_keyword("DelegationState")
"""`held` for dead letters, else the delegation's state."""
ROLLOUT_STATE = SearchAttributeKey.for_keyword("RollState")
"""Of a fleet rollout: `planned`, `rolling`, `paused`, `aborted`, `ended`."""
SEARCH_ATTRIBUTES = (PHASE, INSTANCE, ERROR_CODE, REASON, GENERATION, DELEGATION_STATE, ROLLOUT_STATE)


class InvalidPayload(ValueError):
    """A payload that does not fit its message; the text says which member and why."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Name = Annotated[str, Field(max_length=200)]
Reason = Annotated[str, Field(max_length=1000)]


class RecreateRequest(_Message):
    """Ask for a new box. Every member is optional; a bare signal asks on nobody's behalf."""

    reason: Reason = ""
    requested_by: Name = ""
    """Who asks: `watchdog`, `admin:alice`. Human if it starts with `admin`, else automatic."""
    observed_generation: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] | None = None
    """The generation whose stall the sender saw; a request about one that is gone changes nothing."""
    request_id: Name | None = None
    """The same ID gets the earlier outcome again."""
    force: bool = False
    """Pass budget and freeze, or give up a generation that awaits registration. Heeded from humans."""


class IntentRequest(_Message):
    """Ask to stop, start or delete the workspace."""

    reason: Reason = ""
    requested_by: Name = ""
    request_id: Name | None = None


class DeclareDead(_Message):
    """A human's word that a box whose termination cannot be confirmed is gone."""

    instance_id: Annotated[str, Field(pattern=r"^i-[0-9a-f]{8,17}$")]
    reason: Reason = ""
    requested_by: Name = ""
    request_id: Name | None = None


class Freeze(_Message):
    """Defer automatic recreates for a while; it ends by itself."""

    reason: Reason = ""
    requested_by: Name = ""
    seconds: Annotated[int, Field(ge=0, le=86_400)] = 900
    """How long; 0 thaws."""


class DelegationCommand(_Message):
    """A human's word about a delegation."""

    reason: Reason = ""
    requested_by: Name = ""


class DelegationStatus(_Message):
    """The answer of a delegation's `status` query; its content is in the ledger only."""

    delegation_id: str
    state: DelegationState | None
    """None: nobody has looked yet."""
    attempt: int
    held: bool
    """A dead letter: `resend` or `give_up` decides."""


class BoxEvent(_Message):
    """A transition that the register API or the beat scan saw in PostgreSQL."""

    kind: BoxEventKind
    generation: int
    at: AwareDatetime
    detail: Reason = ""


class VolumeType(StrEnum):
    """EC2's types of volumes for general use and for databases."""

    GP3 = "gp3"
    GP2 = "gp2"
    IO2 = "io2"


class DataVolume(_Message):
    """A volume that outlives the workspace's boxes. What it says counts when the volume is created."""

    size_gib: Annotated[int, Field(ge=1, le=16_384)] = 20
    type: VolumeType = VolumeType.GP3
    iops: Annotated[int, Field(ge=100, le=64_000)] | None = None
    """For `gp3` at least 3000, which it has without; `io2` must name it; `gp2` has none to choose."""
    throughput_mibps: Annotated[int, Field(ge=125, le=1000)] | None = None
    """For `gp3` only."""
    encrypted: bool = True
    """With the account's default key."""

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.iops is None and self.type is VolumeType.IO2:
            raise ValueError("io2 needs iops")
        if self.iops is not None and self.type is VolumeType.GP2:
            raise ValueError("gp2 has no iops to choose")
        if self.iops is not None and self.type is VolumeType.GP3 and not 3000 <= self.iops <= 16_000:
            raise ValueError("gp3 takes 3000 to 16000 iops")
        if self.type is VolumeType.IO2 and self.size_gib < 4:
            raise ValueError("io2 has at least 4 GiB")
        if self.throughput_mibps is not None and self.type is not VolumeType.GP3:
            raise ValueError("only gp3 has a throughput to choose")
        return self


class WorkspaceSpec(_Message):
    """What makes this workspace differ from the worker's settings. `{}` takes them as they are."""

    image_id: Annotated[str, Field(max_length=200)] | None = None
    instance_types: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=20)
    """In order of preference; the next one is tried on a definitive capacity error."""
    subnet_ids: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=20)
    """In order of preference: a subnet is a zone."""
    security_group_ids: tuple[Name, ...] | None = Field(default=None, max_length=20)
    runtime_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    register_deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """From the instance running to its first authenticated beat."""
    canary: CanaryPolicy | None = None
    data_volume: DataVolume | None = None
    """Once there is one, it stays until the workspace is deleted, also if a later spec does not name it."""
    snapshot: SnapshotPolicy | None = None
    """When a snapshot of it is asked for: `off` (default), or `recreate`."""
    delete_snapshots: bool | None = None
    """Whether deleting the workspace deletes its snapshots too; by default they stay, as the backup that they
    are."""


class RequestOutcome(_Message):
    """What became of a request. Never changes once it is given."""

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


class WorkspaceStatus(_Message):
    """The answer of the `status` query: what the lifecycle knows. Beats are in PostgreSQL only."""

    workspace_id: str
    phase: Phase
    generation: int
    instance_id: str | None
    private_ip: str | None
    dns_name: str | None
    volume_id: str | None = None
    """The data volume, while the box has it."""
    recreates: int
    """Accepted in the last 24 h."""
    last_error: LastError | None
    conditions: tuple[Condition, ...]
    waiting_for: str
    """What the workflow does or waits for now, in words."""


M = TypeVar("M", bound=BaseModel)


def read(model: type[M], payload: Sequence[object]) -> M:
    """Validate the arguments of a message: none at all, or one object.

    Raises `InvalidPayload` with one line that names each wrong member.
    """
    if len(payload) > 1:
        raise InvalidPayload(f"{len(payload)} arguments; one object, or none, is expected")
    try:
        return model.model_validate(payload[0] if payload and payload[0] is not None else {})
    except ValidationError as error:
        raise InvalidPayload(
            "; ".join(
                f"{'.'.join(map(str, fault['loc']))[:64] or 'payload'}: {fault['msg'][:160]}"
                for fault in error.errors(include_url=False, include_input=False)[:5]
            )
        ) from None


def parse_request(kind: RequestKind, payload: Sequence[object], *, request_id: str) -> RequestInput:
    """The request that a message asks for; `request_id` is used where the message names none.

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
