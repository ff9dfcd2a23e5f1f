"""The enumerations of the lifecycle. Standard library only."""

from enum import StrEnum


class Phase(StrEnum):
    """The state of the workspace in one word. Derived from the rest of the state, never stored in it."""

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
    """The desired state of the workspace."""

    RUN = "run"
    STOP = "stop"
    DELETE = "delete"


class Step(StrEnum):
    """The steps of the lifecycle; also the `phase` member of an error on the workspace record."""

    ENROLL = "enroll"
    OPEN = "open"
    CLOSE = "close"
    FENCE = "fence"
    LAUNCH = "launch"
    ADDRESS = "address"
    AWAIT_REGISTRATION = "await_registration"
    """Not an activity: the workflow waits for the box to register and send heartbeats."""
    CANARY = "canary"
    REMOVE_ADDRESS = "remove_address"
    CHECK_REGISTRATION = "check_registration"
    """Read from PostgreSQL what the box did, before its register deadline counts as missed."""
    EVICT = "evict"
    """Terminate a superseded box that still calls, or an orphan instance."""
    FLEET_PERMIT = "fleet_permit"
    """Check whether the fleet allows an automatic recreate now."""
    DETACH = "detach"
    """Detach the data volume from earlier boxes. Only with a data volume, like the next three."""
    SNAPSHOT = "snapshot"
    """Request a snapshot of the data volume, by policy. Nothing waits for the snapshot."""
    ATTACH = "attach"
    """Create the data volume if there is none yet, and attach it to the running instance."""
    DELETE_VOLUME = "delete_volume"
    PROCESS = "process"
    """Not an activity: whether the agent processes the work it is given."""


class CanaryPolicy(StrEnum):
    """When the control plane sends the agent a canary message."""

    OFF = "off"
    GENERATION = "generation"
    """Once per generation, since a canary costs a model call."""
    IDLE = "idle"
    """Also when the agent has processed nothing for a while."""


class SnapshotPolicy(StrEnum):
    """When a snapshot of the data volume is requested."""

    OFF = "off"
    RECREATE = "recreate"
    """Before the next box gets the volume."""


class CanaryState(StrEnum):
    """The progress of this generation's canary."""

    DUE = "due"
    ANSWERED = "answered"
    MISSED = "missed"
    DUE_AGAIN = "due_again"
    """The agent was idle and gets another canary; `online` does not wait for it."""


class ConditionType(StrEnum):
    """The aspects of a workspace that have a condition."""

    INSTANCE_RUNNING = "InstanceRunning"
    ADDRESS_IN_SYNC = "AddressInSync"
    REGISTERED = "Registered"
    HEARTBEAT_FRESH = "HeartbeatFresh"
    PROCESSING = "Processing"
    RECREATE_ALLOWED = "RecreateAllowed"


class ConditionStatus(StrEnum):
    """As in Kubernetes, in lower case. Unknown is not true."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class BoxEventKind(StrEnum):
    """The state changes of a box that the register API, scans and the orphan sweep detect."""

    REGISTERED = "registered"
    ALIVE = "alive"
    STALE = "stale"
    CREDENTIAL_LOST = "credential_lost"
    SUPERSEDED_CALL = "superseded_call"
    """A box of a superseded generation called the register API; it should be terminated already."""
    NOT_PROCESSING = "not_processing"
    """The box accepts work and its agent does not process it."""
    PROCESSING = "processing"
    ORPHAN = "orphan"
    """The sweep found an instance of the workspace without a launch record; the detail is its ID."""
    UNRECORDED_INSTANCE = "unrecorded_instance"
    """The sweep found the instance of the newest launch, whose response was lost; the detail is its ID."""


ORPHAN_EVENTS = frozenset({BoxEventKind.ORPHAN, BoxEventKind.UNRECORDED_INSTANCE})
"""The events that the orphan sweep sends."""
