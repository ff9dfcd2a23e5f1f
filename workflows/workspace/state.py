"""The values that the lifecycle of a workspace is made of. Standard library only.

They hold facts; what follows from facts is decided in `lifecycle`, `admission`, `recovery` and `fencing`.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from workflows.workspace.requests import Request, RequestInput


class Phase(StrEnum):
    """What the workspace is, in one word; derived from the facts, never stored in the state."""

    PROVISIONING = "provisioning"
    AWAITING_REGISTRATION = "awaiting_registration"
    ONLINE = "online"
    DEGRADED = "degraded"
    RECREATING = "recreating"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class Intent(StrEnum):
    """What the workspace is meant to be."""

    RUN = "run"
    STOP = "stop"
    DELETE = "delete"


class Step(StrEnum):
    """The steps of a generation; also the phase of a failure on the record."""

    ENROLL = "enroll"
    OPEN = "open"
    CLOSE = "close"
    FENCE = "fence"
    LAUNCH = "launch"
    ADDRESS = "address"
    AWAIT_REGISTRATION = "await_registration"
    CANARY = "canary"
    REMOVE_ADDRESS = "remove_address"
    CHECK_REGISTRATION = "check_registration"
    """Asking the record what the box did, before its deadline counts as missed."""
    EVICT = "evict"
    """Ending a superseded box that still calls, or an instance that nobody claims."""
    FLEET_PERMIT = "fleet_permit"
    """Asking whether the fleet allows an automatic recreate now."""
    DETACH = "detach"
    """Seeing that the data volume is free of the boxes before; only where there is one, as the next three."""
    SNAPSHOT = "snapshot"
    """Asking for a snapshot of it, by the policy; nothing waits for it."""
    ATTACH = "attach"
    """Creating it if it was never there, and attaching it to the box that runs."""
    DELETE_VOLUME = "delete_volume"
    PROCESS = "process"
    """No step of ours: what the agent does with what it is given."""


class CanaryPolicy(StrEnum):
    """When the control plane asks the agent a question of its own."""

    OFF = "off"
    GENERATION = "generation"
    """Once for each generation, since a canary costs a model call."""
    IDLE = "idle"
    """Also when nothing was processed for a while."""


class SnapshotPolicy(StrEnum):
    """When a snapshot of the data volume is asked for."""

    OFF = "off"
    RECREATE = "recreate"
    """Before the next box gets it."""


class CanaryState(StrEnum):
    """How far the question of this generation is."""

    DUE = "due"
    ANSWERED = "answered"
    MISSED = "missed"
    DUE_AGAIN = "due_again"
    """The agent has been idle, and is asked once more; `online` does not wait for this one."""


class ConditionType(StrEnum):
    """The questions an operator has about a workspace."""

    INSTANCE_RUNNING = "InstanceRunning"
    ADDRESS_IN_SYNC = "AddressInSync"
    REGISTERED = "Registered"
    HEARTBEAT_FRESH = "HeartbeatFresh"
    PROCESSING = "Processing"
    RECREATE_ALLOWED = "RecreateAllowed"


class ConditionStatus(StrEnum):
    """As in Kubernetes, with lower-case words. Unknown is not true."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One answer, with its reason in a word and in a sentence."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    generation: int
    last_transition_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """Why a step did not succeed; cleared only by the success of the same step."""

    code: str
    phase: Step
    message: str
    generation: int
    attempt: int
    first_at: datetime
    last_at: datetime
    count: int
    retryable: bool
    """Whether the control plane tries again by itself."""
    hint: str
    """What a human can do about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The durations of this workspace, resolved from its spec and the worker's settings."""

    register_deadline: timedelta = timedelta(minutes=10)
    """The slowest healthy boot took 6 min; Cluster API waits 10, Karpenter 15."""
    recreate_grace: timedelta = timedelta(seconds=120)
    """A request that names no generation, this soon after a box came online, means the box before."""
    canary: CanaryPolicy = CanaryPolicy.GENERATION
    canary_deadline: timedelta = timedelta(minutes=5)
    idle: timedelta = timedelta(minutes=10)
    """Under the idle policy, without processed work for so long, the agent is asked again."""
    not_processing: timedelta = timedelta(minutes=3)
    """A box that doesn't process for so long is a reason for recreation: as long as for silence."""
    fence_unconfirmed: timedelta = timedelta(minutes=10)
    """A termination takes a minute or two. Unconfirmed for so long, a human should know, and may decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconfirmedInstance:
    """An instance, or a launch without one yet, that must be proven gone before the next launch."""

    key: str
    """The instance ID, or `launch-GENERATION-ATTEMPT` where RunInstances was called but no ID is known."""
    launched_at: datetime
    missing_since: datetime | None = None
    missing_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The progress of proving that no other box of this workspace is alive."""

    confirmed: bool = False
    since: datetime | None = None
    unconfirmed_instances: tuple[UnconfirmedInstance, ...] = ()
    declared_dead: tuple[str, ...] = ()
    volume_free: bool = False
    """The data volume is attached to none of them."""
    snapshot_over: bool = False
    """The policy's snapshot was asked for, or will not be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCallCount:
    """How often register calls got one answer."""

    code: str
    count: int
    from_box: bool
    """Whether they came from the address recorded for the box."""
    last_at: datetime
    source: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationStatus:
    """What the register API knows of a generation's box."""

    registered_at: datetime | None = None
    heartbeat_at: datetime | None = None
    """The last beat, if it is fresh."""
    token_unused: bool = False
    """A token was given, and none was ever used."""
    calls: tuple[RegisterCallCount, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What is known of the current generation's box; facts in whatever order they came."""

    attempt: int = 1
    instance_id: str | None = None
    private_ip: str | None = None
    dns_name: str | None = None
    volume_id: str | None = None
    """The data volume, once it is attached to this box."""
    running_since: datetime | None = None
    """When it ran and its DNS name was written; the register deadline counts from here."""
    registered_at: datetime | None = None
    heartbeat_at: datetime | None = None
    """When the first authenticated beat was heard of; a fact may be under way for a while."""
    stale_since: datetime | None = None
    credential_lost_at: datetime | None = None
    last_liveness_at: datetime | None = None
    """The newest fact about beats; older ones change nothing."""
    checking_registration: bool = False
    """Its deadline has passed, and the record is asked what it did."""
    registration: RegistrationStatus | None = None
    """What the record said then."""
    canary: CanaryState = CanaryState.DUE
    canary_attempts: int = 0
    canary_round: int = 0
    """Which question it is: 0 is the one that `online` waits for."""
    next_canary_at: datetime | None = None
    """Under the idle policy, when the next question is due."""
    canary_misses: int = 0
    """In a row, of the questions after the first."""
    processed_at: datetime | None = None
    """When it was first seen to process something, or seen to again."""
    agent_unresponsive_since: datetime | None = None
    agent_unresponsive_reason: str = ""
    last_processing_at: datetime | None = None
    """The newest fact about processing; older ones change nothing."""
    replacement_requested: bool = False
    """The lifecycle asked for another box because this one doesn't process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """A generation on its way to `online`, and who waits for it."""

    generation: int
    since: datetime
    requesters: tuple[str, ...] = ()
    first_launch: bool = False
    """Nothing ran before it: `provisioning`, where others are `recreating`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreateBudget:
    """How often the workspace was recreated, and when it may be again."""

    automatic: tuple[datetime, ...] = ()
    """Accepted automatic requests of the last 24 h."""
    accepted: tuple[datetime, ...] = ()
    """All accepted recreates of the last 24 h."""
    streak: int = 0
    """Automatic recreates since the box was last online for an hour; sets the spacing."""
    exhausted: bool = False
    """The budget was spent, or nothing helped: nothing automatic happens until a human acts."""
    failures: tuple[str, ...] = ()
    """How the last recreates failed: phase and code of each. Empty once a box came online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A step that failed and is tried again."""

    step: Step
    failures: int
    not_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFreeze:
    """Automatic recreates are deferred for the whole fleet."""

    until: datetime
    reason: str
    at_capacity: bool = False
    """Nothing is wrong with the fleet: as many recreates as may be are under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """All that the lifecycle of one workspace remembers; carried over by continue-as-new."""

    workspace_id: str
    timings: Timings = field(default_factory=Timings)
    intent: Intent = Intent.RUN
    enrolled: bool = False
    """False until the record was read; again false when the record turns out to be ahead of us."""
    generation: int = 0
    opened: int = 0
    """The newest generation that PostgreSQL is known to have opened."""
    closed: bool = False
    """PostgreSQL is known to have the intent to stop or delete, and the tokens are revoked."""
    address_removed: bool = False
    has_volume: bool = False
    """Whether the workspace has a data volume, or is to get one; without, no step knows of it."""
    snapshots: SnapshotPolicy = SnapshotPolicy.OFF
    volume_deleted: bool = False
    fence: Fence = field(default_factory=Fence)
    box: Box = field(default_factory=Box)
    provisioning: Provisioning | None = None
    inquires: bool = False
    """Whether this run asks the record before a deadline counts as missed; older ones did not."""
    heeds_resets: bool = False
    """Whether the record is read again after a reset; a run that older code enrolled goes on as it did."""
    superseded_caller: int | None = None
    """A superseded generation whose box called, and must be ended."""
    orphan_instances: tuple[str, ...] = ()
    """Instances that the sweep saw and nobody claims."""
    online_since: datetime | None = None
    halted: bool = False
    """A step failed for good: nothing is tried until somebody asks."""
    budget: RecreateBudget = field(default_factory=RecreateBudget)
    retry_recreate_at: datetime | None = None
    """When the lifecycle repeats its own deferred request."""
    frozen: FleetFreeze | None = None
    consults: bool = False
    """Whether this run minds the fleet, and what did not help before; older ones did not."""
    pending: tuple[RequestInput, ...] = ()
    """Automatic requests that this workspace would accept, and the fleet has not been asked about."""
    retry: Retry | None = None
    errors: tuple[LastError, ...] = ()
    """At most one for each step."""
    conditions: tuple[Condition, ...] = ()
    requests: tuple[Request, ...] = ()
    """The newest ones, oldest first."""
    unrecorded: int = 0
    """How many of the newest requests PostgreSQL is not known to have."""
    revision: int = 0
    """Counts the recorded statuses, so that a late write never replaces a newer one."""

    @property
    def last_error(self) -> LastError | None:
        """The newest failure that nothing has cleared yet."""
        return max(self.errors, key=lambda error: error.last_at, default=None)
