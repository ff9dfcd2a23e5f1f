"""Values that the endpoint and its client exchange about faults, the journal and instances.

Plain values with JSON forms; standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

WORKSPACE_TAG = "onebox:workspace"
GENERATION_TAG = "onebox:generation"

JSON = dict[str, object]


class InvalidFault(ValueError):
    """An invalid fault; the text gives the reason."""


class FaultKind(StrEnum):
    """Effect of a fault on a request."""

    ERROR = "error"
    """The request is refused with `code`, `message` and `status`, without effect."""
    LOST_ANSWER = "lost_answer"
    """The request takes effect, and the connection closes without a response."""
    EMPTY_LIST = "empty_list"
    """DescribeInstances returns no reservations."""
    LATE_LIST = "late_list"
    """DescribeInstances omits instances launched less than `seconds` ago."""
    DELAY = "delay"
    """The request waits for `seconds` before it takes effect."""
    HOLD = "hold"
    """The request takes effect, and the response waits until the fault is released or cleared."""
    SLOW_CHANGE = "slow_change"
    """The affected instances take `seconds` longer for their next state transition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault to inject: effect, matching requests, and count."""

    action: str
    """The AWS action, such as `RunInstances`; `*` for all."""
    fault: FaultKind
    code: str = "RequestLimitExceeded"
    message: str = "Request limit exceeded."
    status: int = 503
    seconds: float = 5.0
    times: int | None = None
    """Number of requests that it affects; None: until it is cleared."""
    workspace: str | None = None
    """Match only requests whose tags, filters, instances or DNS names belong to this workspace."""

    @classmethod
    def from_json(cls, document: object) -> "Fault":
        """Parse a fault from a request. Raises `InvalidFault`."""
        if not isinstance(document, Mapping):
            raise InvalidFault("a fault is an object")
        members = {
            name: document[name] for name in cls.__dataclass_fields__ if document.get(name) is not None
        }
        unknown = sorted(set(document) - set(cls.__dataclass_fields__))
        if unknown:
            raise InvalidFault(f"unknown members: {', '.join(map(str, unknown))}")
        try:
            return cls(**members | {"fault": FaultKind(members["fault"])})
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidFault(f"not a fault: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultStatus:
    """An injected fault and its effects so far."""

    id: str
    fault: Fault
    used: int
    """Number of affected requests."""
    holding: int
    """Number of responses held now; their effects are done."""

    def to_json(self) -> JSON:
        """Return the JSON form."""
        return {"id": self.id, **asdict(self.fault), "used": self.used, "holding": self.holding}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "FaultStatus":
        """Parse the JSON form."""
        own = {"id", "used", "holding"}
        return cls(
            id=str(document["id"]),
            fault=Fault.from_json({name: value for name, value in document.items() if name not in own}),
            used=int(str(document["used"])),
            holding=int(str(document["holding"])),
        )


STATE_CHANGE = "StateChange"
"""Journal action of a transition without a request: an instance entered its next state."""


VOLUME_CHANGE = "VolumeChange"
"""Journal action of a volume: an instance attached or released it."""


class VolumeChange(StrEnum):
    """Outcome of such an entry."""

    ATTACHED = "attached"
    DETACHED = "detached"


class Outcome(StrEnum):
    """Outcome of a request that changes something. `StateChange` and `VolumeChange` have their own."""

    DONE = "done"
    LAUNCHED = "launched"
    TOKEN_REPLAYED = "token_replayed"  # noqa: S105
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One journal entry: a request that changes something, or a change of an instance or volume."""

    seq: int
    at: str
    """ISO 8601, UTC."""
    action: str
    outcome: str
    """An `Outcome`; for a `StateChange`, the instance's new state; for a `VolumeChange`, its outcome."""
    workspace: str | None = None
    generation: int | None = None
    instance_ids: tuple[str, ...] = ()
    code: str | None = None
    """Reason of a refusal."""
    parameters: JSON = field(default_factory=dict)
    """Without user data, which contains a secret."""

    def to_json(self) -> JSON:
        """Return the JSON form."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Entry":
        """Parse the JSON form."""
        members = dict(document)
        ids = members.pop("instance_ids")
        assert isinstance(ids, list)  # noqa: S101
        return cls(instance_ids=tuple(map(str, ids)), **members)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Counts of the changes to one workspace, or to all."""

    launches: int
    terminations: int
    """Instances whose shutdown began, for any reason."""
    dns_changes: int
    snapshots: int
    alive_now: int
    """Pending or running."""
    max_alive_at_once: int
    """Per workspace; over all workspaces, the maximum."""
    max_unterminated_at_once: int
    """The same, including instances that are shutting down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """An instance as EC2 reports it; listed for an hour after its end."""

    instance_id: str
    state: str
    private_ip: str
    launched_at: str
    tags: dict[str, str]
    user_data_sha256: str
    data_volumes: tuple[str, ...] = ()
    """Volumes attached since the launch."""

    @property
    def workspace(self) -> str | None:
        """The workspace from its tags."""
        return self.tags.get(WORKSPACE_TAG)

    @property
    def generation(self) -> int | None:
        """The generation from its tags."""
        generation = self.tags.get(GENERATION_TAG, "")
        return int(generation) if generation.isdecimal() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """IDs and addresses of the endpoint's cloud."""

    hosted_zone_id: str
    hosted_zone_name: str
    region: str
    image_id: str
    subnet_ids: tuple[str, ...]
    """Subnets of the default network, one per zone."""
