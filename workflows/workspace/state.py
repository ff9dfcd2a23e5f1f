"""The values that the lifecycle of a workspace is made of. Standard library only.

The rules over them are in `lifecycle`, `admission`, `backoff` and `phases`.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal, Self

from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import (
    CanaryPolicy,
    CanaryState,
    ConditionStatus,
    ConditionType,
    Intent,
    SnapshotPolicy,
    Step,
)
from workflows.workspace.requests import OutcomeKind, Request, RequestInput, RequestKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One aspect of the workspace, with a machine-readable reason and a message."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str
    generation: int
    last_transition_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastError:
    """Why a step failed. Only the success of the same step clears it."""

    code: str
    phase: Step
    message: str
    generation: int
    attempt: int
    first_at: datetime
    last_at: datetime
    count: int
    retryable: bool
    """Whether the control plane retries automatically."""
    hint: str
    """What an operator can do about it."""
    refused: bool = False
    """AWS rejected the call without effect. It passes once its cause is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """The durations for this workspace, from its spec and the worker's settings."""

    instance_deadline: timedelta = timedelta(minutes=10)
    """How long a launched instance may stay pending. A healthy one runs within a minute."""
    register_deadline: timedelta = timedelta(minutes=10)
    """The slowest healthy boot took 6 min; Cluster API waits 10, Karpenter 15."""
    recreate_grace: timedelta = timedelta(seconds=120)
    """A request without `observed_generation` this soon after `online` is about the previous box."""
    canary: CanaryPolicy = CanaryPolicy.GENERATION
    canary_deadline: timedelta = timedelta(minutes=5)
    idle: timedelta = timedelta(minutes=10)
    """Under the idle policy, how long without processed work before the next canary."""
    not_processing: timedelta = timedelta(minutes=3)
    """How long an agent may be unresponsive before its box is replaced; the same as for missed heartbeats."""
    fence_unconfirmed: timedelta = timedelta(minutes=10)
    """A termination takes a minute or two. After this long, an operator is alerted and may decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnconfirmedInstance:
    """An instance, or a launch without a known instance, that must be gone before the next launch."""

    key: str
    """The instance ID, or `launch-GENERATION-ATTEMPT` where RunInstances was called and no ID is known."""
    launched_at: datetime
    missing_since: datetime | None = None
    missing_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """The progress of confirming that no earlier box of this workspace is alive."""

    confirmed: bool = False
    since: datetime | None = None
    unconfirmed_instances: tuple[UnconfirmedInstance, ...] = ()
    declared_dead: tuple[str, ...] = ()
    volume_free: bool = False
    """The data volume is attached to none of the earlier boxes."""
    snapshot_over: bool = False
    """The snapshot was requested, or is not going to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """What is known of the current generation's box. Events may arrive in any order."""

    attempt: int = 1
    instance_id: str | None = None
    launched_at: datetime | None = None
    """When the workflow learned of the instance. The instance deadline starts here."""
    private_ip: str | None = None
    dns_name: str | None = None
    volume_id: str | None = None
    """The data volume, once it is attached to this box."""
    running_since: datetime | None = None
    """When it was running and its DNS name was written. The register deadline starts here."""
    registered_at: datetime | None = None
    heartbeat_at: datetime | None = None
    """When the workflow learned of the first authenticated heartbeat. Events may be delayed."""
    stale_since: datetime | None = None
    credential_lost_at: datetime | None = None
    last_liveness_at: datetime | None = None
    """Time of the newest heartbeat event; older ones change nothing."""
    checking_registration: bool = False
    """The register deadline has passed, and PostgreSQL is read to see what the box did."""
    registration: RegistrationStatus | None = None
    """What PostgreSQL said then."""
    canary: CanaryState = CanaryState.DUE
    canary_attempts: int = 0
    canary_round: int = 0
    """The number of the canary: `online` waits for number 0."""
    next_canary_at: datetime | None = None
    """Under the idle policy, when the next canary is due."""
    canary_misses: int = 0
    """Consecutive misses of canaries after number 0."""
    processed_at: datetime | None = None
    """When the agent was last seen to process work."""
    agent_unresponsive_since: datetime | None = None
    agent_unresponsive_reason: str = ""
    last_processing_at: datetime | None = None
    """Time of the newest processing event; older ones change nothing."""
    replacement_requested: bool = False
    """The workflow has requested a recreate because this agent is unresponsive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """A generation in progress towards `online`, and who requested it."""

    kind: Literal["provisioning"] = "provisioning"
    generation: int
    since: datetime
    requesters: tuple[str, ...] = ()
    first_launch: bool = False
    """No box ran before: the phase is `provisioning`, otherwise `recreating`."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Nothing is in progress: the workspace waits for requests and events of its box."""

    kind: Literal["settled"] = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackingOff:
    """The workflow's own recreate request was deferred, and is due again at `until`."""

    kind: Literal["backing_off"] = "backing_off"
    until: datetime
    reason: str = ""
    """Why it was deferred: backoff, or a frozen or busy fleet."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """The recreate budget is spent, or recreates keep failing the same way: an operator must act."""

    kind: Literal["exhausted"] = "exhausted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Halted:
    """A step failed for good: the workspace waits for a request."""

    kind: Literal["halted"] = "halted"
    step: Step


Waiting = Settled | Provisioning | BackingOff | Exhausted | Halted
"""What the workspace is doing or waiting for; exactly one at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecreateBudget:
    """How often the workspace was recreated, which limits automatic recreates."""

    automatic: tuple[datetime, ...] = ()
    """Accepted automatic requests in the last 24 h."""
    accepted: tuple[datetime, ...] = ()
    """All accepted recreates in the last 24 h."""
    streak: int = 0
    """Automatic recreates since a box was last online for an hour; sets the backoff."""
    failures: tuple[str, ...] = ()
    """Phase and code of the last failed recreates. Empty once a box came online."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A failed step that runs again at `not_before`."""

    step: Step
    failures: int
    not_before: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetFreeze:
    """Automatic recreates are deferred for the whole fleet."""

    until: datetime
    reason: str
    at_capacity: bool = False
    """The fleet is healthy: the limit of concurrent recreates is reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The whole state of one workspace's lifecycle; carried over by continue-as-new."""

    workspace_id: str
    timings: Timings = field(default_factory=Timings)
    intent: Intent = Intent.RUN
    enrolled: bool = False
    """Whether PostgreSQL has been read. Reset when PostgreSQL has a newer generation than this state."""
    generation: int = 0
    opened: int = 0
    """The newest generation that PostgreSQL has opened."""
    closed: bool = False
    """PostgreSQL has the intent to stop or delete, and all tokens are revoked."""
    address_removed: bool = False
    has_volume: bool = False
    """Whether the workspace has a data volume, or is to get one."""
    snapshots: SnapshotPolicy = SnapshotPolicy.OFF
    volume_deleted: bool = False
    fence: Fence = field(default_factory=Fence)
    box: Box = field(default_factory=Box)
    waiting: Waiting = field(default_factory=Settled)
    retry: Retry | None = None
    """The failed step that runs again. `now_waiting` clears it."""
    superseded_caller: int | None = None
    """A superseded generation whose box called the register API, and must be terminated."""
    orphan_instances: tuple[str, ...] = ()
    """Instances of this workspace that the sweep found and no launch accounts for."""
    online_since: datetime | None = None
    budget: RecreateBudget = field(default_factory=RecreateBudget)
    frozen: FleetFreeze | None = None
    pending: tuple[RequestInput, ...] = ()
    """Automatic requests that pass every rule of this workspace and wait for a fleet permit."""
    errors: tuple[LastError, ...] = ()
    """At most one per step."""
    conditions: tuple[Condition, ...] = ()
    requests: tuple[Request, ...] = ()
    """The newest ones, oldest first."""
    unrecorded: int = 0
    """How many of the newest requests are not in PostgreSQL yet."""
    revision: int = 0
    """Number of the last status written, so that a late write never replaces a newer one."""

    @property
    def last_error(self) -> LastError | None:
        """The newest failure that has not been cleared."""
        return max(self.errors, key=lambda error: error.last_at, default=None)

    @property
    def provisioning(self) -> Provisioning | None:
        """The generation in progress; None if none is."""
        return self.waiting if isinstance(self.waiting, Provisioning) else None

    @property
    def halted(self) -> bool:
        """Whether a step failed for good."""
        return isinstance(self.waiting, Halted)

    @property
    def exhausted(self) -> bool:
        """Whether automatic recreates have ended until an operator acts."""
        return isinstance(self.waiting, Exhausted)

    @property
    def refused(self) -> bool:
        """Whether a rejected step is retried until the cause of the rejection is gone."""
        step = self.retry.step if self.retry is not None else None
        return any(error.phase is step and error.refused for error in self.errors)

    @property
    def opening_request_id(self) -> str:
        """The ID of the request that opened the current generation; empty if there was none."""
        opening = (RequestKind.RECREATE, RequestKind.START)
        for it in reversed(self.requests):
            accepted = it.outcome is OutcomeKind.ACCEPTED and it.kind in opening
            if accepted and it.generation == self.generation:
                return it.request_id
        return ""

    def now_waiting(self, waiting: Waiting) -> Self:
        """A copy that waits for something else, without the pending retry."""
        return replace(self, waiting=waiting, retry=None)

    def is_fence_unconfirmed(self, at: datetime) -> bool:
        """Whether the fence has been open for so long that an operator is alerted, and may decide."""
        fence = self.fence
        return (
            not fence.confirmed
            and fence.since is not None
            and at - fence.since >= self.timings.fence_unconfirmed
        )
