"""The contract of the activities of a workspace's lifecycle: names, requests and results.

Each docstring states what the implementation guarantees. Every activity may run twice, stop halfway, or
run in parallel with an earlier attempt of itself.
"""

from dataclasses import dataclass
from datetime import datetime

from temporalio import activity

from workflows.shared.step_result import StepResult
from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import Intent, Phase, SnapshotPolicy
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.requests import Request
from workflows.workspace.state import Condition, LastError, Timings

SUPERSEDED = "generation_superseded"
"""Error type, not retryable: PostgreSQL has a newer generation than the request names."""

REFUSED = "refused"
"""Second detail of an error: AWS rejected the call without effect, and the workflow retries the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enroll:
    """Create the workspace record if there is none, and read it."""

    workspace_id: str
    spec: WorkspaceSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenGeneration:
    """Open the generation that follows `after`, unless it is open already."""

    workspace_id: str
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseWorkspace:
    """Store the intent to stop or delete, and revoke all tokens of the workspace."""

    workspace_id: str
    generation: int
    """The activity does nothing if a newer generation is open: a late attempt must not close it."""
    intent: Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceInstances:
    """Terminate the instances of older generations, and observe their state.

    An instance of a newer generation than `generation` is never touched: this may be a late attempt.
    """

    workspace_id: str
    generation: int
    keep_attempt: int | None
    """The attempt of `generation` whose instance is kept; None: the fence terminates all of them."""
    declared_dead: tuple[str, ...]
    """Instances that an operator declared dead. The fence records this and skips them."""
    proven_gone: tuple[str, ...]
    """Keys of missing instances that the lifecycle considers gone. The fence records this and skips them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """Launch the box of this generation and attempt, or find the one that runs already."""

    workspace_id: str
    generation: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Wait for the instance to run, and point the workspace's DNS name at it."""

    workspace_id: str
    generation: int
    attempt: int
    instance_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveAddress:
    """Remove the DNS name of a deleted workspace."""

    workspace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskCanary:
    """Send the agent of the current box a message that only tests whether it processes work."""

    workspace_id: str
    generation: int
    attempt: int
    """The number of the attempt. All attempts use one message ID."""
    round: int = 0
    """The number of the canary: 0 for the first, more only under the `idle` policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRegistration:
    """Read what PostgreSQL has recorded about the box of a generation."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evict:
    """Terminate the running instances of a superseded generation, also those recorded as terminated."""

    workspace_id: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordStatus:
    """Write the status, and the request outcomes that are not in PostgreSQL yet."""

    workspace_id: str
    generation: int
    revision: int
    phase: Phase
    last_error: LastError | None
    conditions: tuple[Condition, ...]
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecorded:
    """The newest revision in PostgreSQL; larger than the request's if a newer status was written before."""

    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled(StepResult):
    """What a workflow without state needs of the workspace record."""

    intent: Intent
    deleted: bool
    generation: int
    """The newest generation; 0 if none was opened yet."""
    current: bool
    """Whether that generation is still open, not closed by a stop."""
    revision: int
    timings: Timings
    attempt: int
    """The newest launch attempt of the generation, at least 1."""
    registered_at: datetime | None
    heartbeat_at: datetime | None
    """The last heartbeat, if it is fresh."""
    automatic: tuple[datetime, ...]
    """Accepted automatic recreates in the last 24 h."""
    accepted: tuple[datetime, ...]
    """All accepted recreates in the last 24 h."""
    credential_lost_at: datetime | None = None
    agent_unresponsive_since: datetime | None = None
    agent_unresponsive_reason: str = ""
    has_volume: bool = False
    """Whether the workspace has a data volume, or the open generation gets one."""
    snapshots: SnapshotPolicy = SnapshotPolicy.OFF
    decided: tuple[Request, ...] = ()
    """The newest recorded requests, oldest first, so that a repeated request ID gets the same outcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOpened(StepResult):
    """The generation that is open now."""

    generation: int
    timings: Timings
    has_volume: bool = False
    snapshots: SnapshotPolicy = SnapshotPolicy.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingInstance:
    """A recorded instance, or a launch without one, that EC2 does not list."""

    key: str
    launched_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceObserved(StepResult):
    """One observation of EC2. Confirmed terminations are recorded and not checked again."""

    terminated: tuple[str, ...]
    alive: tuple[str, ...]
    missing: tuple[MissingInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchResult(StepResult):
    """The result of a launch: exactly one of `instance_id`, `capacity_code` and `orphan_instances` is set."""

    instance_id: str | None = None
    private_ip: str | None = None
    adopted: bool = False
    """The instance was found by its tags; this call did not launch it."""
    capacity_code: str | None = None
    """EC2's definitive capacity error: this attempt has no instance and never gets one."""
    capacity_message: str = ""
    offerings: int = 1
    """The number of combinations of subnet and instance type that can be tried."""
    orphan_instances: tuple[str, ...] = ()
    """Running instances with the workspace's tag that do not belong to this attempt: fence again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressResult(StepResult):
    """The address of the box, or that its instance ended before it ran."""

    gone: bool = False
    """The instance ended; no address was written."""
    detail: str = ""
    private_ip: str = ""
    dns_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryResult(StepResult):
    """Whether the agent answered with a finished result; otherwise `code` and `detail` say what it did."""

    answered: bool
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted(StepResult):
    """The instances of a superseded generation that were running, and are being terminated."""

    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphansTerminated(StepResult):
    """The result for each orphan instance."""

    instances: tuple[str, ...]
    """All instances that were checked."""
    terminated: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """The instances that were not terminated, each with the reason."""


@activity.defn
async def enroll(request: Enroll) -> Enrolled:
    """Insert the record if there is none. An empty spec never overwrites a stored one."""
    raise NotImplementedError


@activity.defn
async def open_generation(request: OpenGeneration) -> GenerationOpened:
    """In one transaction: supersede the old generation, revoke its tokens, insert the new one.

    Compare-and-set on `after`: if a newer generation is open already, the result is that one. If a stop has
    closed the newer one, the request is late and fails with `SUPERSEDED`.
    """
    raise NotImplementedError


@activity.defn
async def close_workspace(request: CloseWorkspace) -> None:
    """In one transaction: store the intent, supersede the generation, revoke its tokens."""
    raise NotImplementedError


@activity.defn
async def fence_instances(request: FenceInstances) -> FenceObserved:
    """Terminate, then poll EC2 for at most a minute. An instance missing in the list is not confirmed."""
    raise NotImplementedError


@activity.defn
async def launch(request: Launch) -> LaunchResult:
    """Adopt an instance by its tags, else call RunInstances with the stored request and ClientToken."""
    raise NotImplementedError


@activity.defn
async def address(request: Address) -> AddressResult:
    """Wait until the instance runs, then write the DNS name in one compare-and-swap change batch."""
    raise NotImplementedError


@activity.defn
async def remove_address(request: RemoveAddress) -> None:
    """Delete the DNS name, if it exists."""
    raise NotImplementedError


@activity.defn
async def ask_canary(request: AskCanary) -> CanaryResult:
    """Send one A2A `message/send` to the recorded address, with port and path of the registered URL."""
    raise NotImplementedError


@activity.defn
async def check_registration(request: CheckRegistration) -> RegistrationStatus:
    """Read the registration, the last heartbeat, and the responses to register calls. Read-only."""
    raise NotImplementedError


@activity.defn
async def evict(request: Evict) -> Evicted:
    """Terminate the running instances of a superseded generation, also those declared dead."""
    raise NotImplementedError


@activity.defn
async def record_status(request: RecordStatus) -> StatusRecorded:
    """Write the status unless a newer revision is stored; insert each request ID's outcome once."""
    raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateOrphans:
    """Terminate instances that are still orphans."""

    workspace_id: str
    instances: tuple[str, ...]
    generation: int | None = None
    """The workspace's newest generation, from its workflow. None in requests of the sweep, which acts for
    workspaces without a workflow: deleted ones, and ones that are not in PostgreSQL."""


@activity.defn
async def terminate_orphans(request: TerminateOrphans) -> OrphansTerminated:
    """Terminate those that still run, carry this control plane's tag, are unprotected and unclaimed."""
    raise NotImplementedError
