"""What the lifecycle is told: results of steps, failures, and what boxes did. Standard library only.

Facts come in whatever order; none of them says what is to be done.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from workflows.workspace.requests import Request
from workflows.workspace.state import Intent, SnapshotPolicy, Step, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """The record, as a workflow that knows nothing yet needs it."""

    intent: Intent
    deleted: bool
    generation: int
    """0 if none was ever opened."""
    current: bool
    """Whether that generation is still the open one (not closed by a stop)."""
    revision: int
    timings: Timings
    attempt: int
    """The newest launch attempt of the generation, at least 1."""
    registered_at: datetime | None
    heartbeat_at: datetime | None
    """The last beat, if it is fresh."""
    automatic: tuple[datetime, ...]
    """Accepted automatic recreates of the last 24 h."""
    accepted: tuple[datetime, ...]
    credential_lost_at: datetime | None = None
    agent_unresponsive_since: datetime | None = None
    agent_unresponsive_reason: str = ""
    has_volume: bool = False
    """Whether there is a data volume, or the open generation is to get one."""
    snapshots: SnapshotPolicy = SnapshotPolicy.OFF
    decided: tuple[Request, ...] = ()
    """The newest requests on the record, oldest first: one that comes again gets the same answer."""
    heeds_resets: bool = False
    """True since workers read the record again after a reset. In the place of a patch: its marker would come
    before the answer to an update, or after it, and be elsewhere in a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOpened:
    """The generation that is now the current one."""

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
class FenceObserved:
    """What EC2 said in one look. Confirmed terminations are recorded, and not looked at again."""

    terminated: tuple[str, ...]
    alive: tuple[str, ...]
    missing: tuple[MissingInstance, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchResult:
    """Exactly one of `instance_id`, `capacity_code` and `orphan_instances` says what happened."""

    instance_id: str | None = None
    private_ip: str | None = None
    adopted: bool = False
    """The instance was found under its tags, not by this call."""
    capacity_code: str | None = None
    """EC2's definitive capacity error: this attempt has no instance and never will."""
    capacity_message: str = ""
    offerings: int = 1
    """How many combinations of zone and type there are to go through."""
    orphan_instances: tuple[str, ...] = ()
    """Instances alive under the workspace's tag that are not this attempt's: fence again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDetached:
    """The data volume is attached to no box of before, or was never created."""

    kept: bool = False
    """It is attached to the current generation's own box, and stays there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotResult:
    """What became of the snapshot that the policy wants."""

    snapshot_id: str | None = None
    """The one that was asked for now."""
    covered: bool = False
    """None was needed: one is under way or recent, or there is nothing to take one of."""
    code: str = ""
    """Why there is none: EC2's refusal, or that it is being spared after one."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachResult:
    """Exactly one of `volume_id`, `gone` and `occupied_by` says what happened."""

    volume_id: str | None = None
    gone: bool = False
    """The instance ended instead of running."""
    detail: str = ""
    occupied_by: str | None = None
    """The volume is attached to this other instance: detach again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressResult:
    """`gone` if the instance ended instead of running; otherwise the address that was written."""

    gone: bool = False
    detail: str = ""
    private_ip: str = ""
    dns_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CanaryResult:
    """Whether the agent answered with a finished result, and what it did instead."""

    answered: bool
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPermit:
    """Whether the fleet allows this workspace an automatic recreate now."""

    granted: bool
    frozen: bool = False
    """Nothing automatic begins anywhere, where `granted` is false; else only too much is under way."""
    reason: str = ""
    retry_after: timedelta = timedelta()
    """When asking again may get another answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogReport:
    """What the watchdog saw of the fleet, and what it did."""

    running: int
    """Workspaces that are meant to run, and have been given a box."""
    stale: int
    recreating: int
    """Automatic recreates under way."""
    max_concurrent: int
    """As many may be."""
    frozen: str | None
    """Why nothing automatic begins; None if it may."""
    requested: tuple[str, ...]
    """The workspaces for which another box was asked for in this round."""
    waiting: int
    """More of them, for which there is no room now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """The instances of a superseded generation that were alive, and are being terminated."""

    instances: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphansTerminated:
    """What became of instances that nobody claims."""

    instances: tuple[str, ...]
    """All that were looked at, whatever was found."""
    terminated: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    """Those that were not touched, each with the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """A step that did not succeed, after the retries that its policy allows."""

    step: Step
    code: str
    message: str
    hint: str
    retryable: bool


class BoxEventKind(StrEnum):
    """The transitions of a box that the register API and the beat scan see."""

    REGISTERED = "registered"
    ALIVE = "alive"
    STALE = "stale"
    CREDENTIAL_LOST = "credential_lost"
    SUPERSEDED_CALL = "superseded_call"
    """A box of this generation called although it is superseded, and should have ended before."""
    NOT_PROCESSING = "not_processing"
    """The box takes work, and its agent does nothing about it."""
    PROCESSING = "processing"
    ORPHAN = "orphan"
    """The sweep saw an instance of the workspace that no launch accounts for; the detail is its ID."""
    UNRECORDED_INSTANCE = "unrecorded_instance"
    """The sweep saw the instance of the newest launch, whose answer was lost; the detail is its ID."""


ORPHAN_EVENTS = frozenset({BoxEventKind.ORPHAN, BoxEventKind.UNRECORDED_INSTANCE})
"""What only the sweep tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxChanged:
    """A transition of a box, as PostgreSQL recorded it."""

    kind: BoxEventKind
    generation: int
    at: datetime
    detail: str = ""
    """What was seen, in words."""
