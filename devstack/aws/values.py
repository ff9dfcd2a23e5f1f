"""What the endpoint and its client say to each other about faults, the journal and instances.

Plain values with their JSON forms; standard library only.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum

WORKSPACE_TAG = "onebox:workspace"
GENERATION_TAG = "onebox:generation"

JSON = dict[str, object]


class InvalidFault(ValueError):
    """A fault that can't be injected; the text says what is wrong with it."""


class FaultKind(StrEnum):
    """What is done to a request."""

    ERROR = "error"
    """It is refused with `code`, `message` and `status`, without effect."""
    LOST_ANSWER = "lost_answer"
    """It takes effect, and the connection is closed instead of an answer."""
    EMPTY_LIST = "empty_list"
    """DescribeInstances answers with no reservations."""
    LATE_LIST = "late_list"
    """DescribeInstances doesn't know instances launched less than `seconds` ago."""
    DELAY = "delay"
    """It waits for `seconds` before it takes effect."""
    HOLD = "hold"
    """It takes effect, and the answer waits until the fault is released or cleared."""
    SLOW_CHANGE = "slow_change"
    """The instances that it changes take `seconds` longer to get to their next state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is to go wrong, for which requests, and how often."""

    action: str
    """The AWS action, `RunInstances`; `*` for all."""
    fault: FaultKind
    code: str = "RequestLimitExceeded"
    message: str = "Request limit exceeded."
    status: int = 503
    seconds: float = 5.0
    times: int | None = None
    """How many requests it matches; None: until it is cleared."""
    workspace: str | None = None
    """Only requests whose tags, filters, instances or DNS names are this workspace's."""

    @classmethod
    def from_json(cls, document: object) -> "Fault":
        """Read a fault as it comes in a request. Raises `InvalidFault`."""
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
    """A fault that was injected, and what it has done so far."""

    id: str
    fault: Fault
    used: int
    """How many requests it befell."""
    holding: int
    """How many answers wait on it now: their effects are done."""

    def to_json(self) -> JSON:
        """The form in which it is listed."""
        return {"id": self.id, **asdict(self.fault), "used": self.used, "holding": self.holding}

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "FaultStatus":
        """Read the form in which it is listed."""
        own = {"id", "used", "holding"}
        return cls(
            id=str(document["id"]),
            fault=Fault.from_json({name: value for name, value in document.items() if name not in own}),
            used=int(str(document["used"])),
            holding=int(str(document["holding"])),
        )


STATE_CHANGE = "StateChange"
"""The action of a journal entry that nobody asked for: an instance went on to its next state."""


VOLUME_CHANGE = "VolumeChange"
"""The action of an entry that tells of a volume: an instance got hold of it, or let it go."""


class VolumeChange(StrEnum):
    """What became of it: the outcome of such an entry."""

    ATTACHED = "attached"
    DETACHED = "detached"


class Outcome(StrEnum):
    """What became of a request that changes something; changes that nobody asked for have their own words."""

    DONE = "done"
    LAUNCHED = "launched"
    TOKEN_REPLAYED = "token_replayed"  # noqa: S105
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal: a request that changes something, or what became of instances and volumes."""

    seq: int
    at: str
    """ISO 8601, UTC."""
    action: str
    outcome: str
    """One of `Outcome`; for a `StateChange` the instance's new state; for a `VolumeChange` that."""
    workspace: str | None = None
    generation: int | None = None
    instance_ids: tuple[str, ...] = ()
    code: str | None = None
    """Why it was refused."""
    parameters: JSON = field(default_factory=dict)
    """Without user data, which holds a secret."""

    def to_json(self) -> JSON:
        """The form in which it is listed."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, object]) -> "Entry":
        """Read the form in which it is listed."""
        members = dict(document)
        ids = members.pop("instance_ids")
        assert isinstance(ids, list)  # noqa: S101
        return cls(instance_ids=tuple(map(str, ids)), **members)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was done to one workspace, or to all of them."""

    launches: int
    terminations: int
    """Instances that began to shut down, by whomever."""
    dns_changes: int
    snapshots: int
    alive_now: int
    """Pending or running."""
    max_alive_at_once: int
    """Of one workspace: over all workspaces it is the largest of theirs."""
    max_unterminated_at_once: int
    """The same, and those that are shutting down count as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """An instance as EC2 has it; listed for an hour after its end."""

    instance_id: str
    state: str
    private_ip: str
    launched_at: str
    tags: dict[str, str]
    user_data_sha256: str
    data_volumes: tuple[str, ...] = ()
    """Attached to it since its launch."""

    @property
    def workspace(self) -> str | None:
        """The workspace that its tags name."""
        return self.tags.get(WORKSPACE_TAG)

    @property
    def generation(self) -> int | None:
        """The generation that its tags name."""
        generation = self.tags.get(GENERATION_TAG, "")
        return int(generation) if generation.isdecimal() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Info:
    """Where things are in the endpoint's cloud."""

    hosted_zone_id: str
    hosted_zone_name: str
    region: str
    image_id: str
    subnet_ids: tuple[str, ...]
    """Of the default network, one in each zone."""
