"""Requests of people and programs: what is asked, by whom, and what became of it. Standard library only.

They are values; what becomes of a request is decided in `admission`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RequestKind(StrEnum):
    """What a request asks for."""

    RECREATE = "recreate"
    STOP = "stop"
    START = "start"
    DELETE = "delete"
    DECLARE_DEAD = "declare_dead"
    UNKNOWN = "unknown"
    """A signal that has no meaning here, or a cancellation; always rejected, and seen."""


class OutcomeKind(StrEnum):
    """What became of a request."""

    ACCEPTED = "accepted"
    JOINED = "joined"
    STALE = "stale"
    DEFERRED = "deferred"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInput:
    """A request before it is decided."""

    kind: RequestKind
    request_id: str
    requested_by: str = ""
    reason: str = ""
    observed_generation: int | None = None
    force: bool = False
    instance_id: str | None = None
    """Of `declare_dead` only."""

    @property
    def automatic(self) -> bool:
        """Whether a program asks."""
        return not is_human(self.requested_by)

    @property
    def forced(self) -> bool:
        """Whether force was asked for by somebody who may."""
        return self.force and not self.automatic


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A decided request: what was asked, and what became of it."""

    request_id: str
    kind: RequestKind
    requested_by: str
    reason: str
    observed_generation: int | None
    force: bool
    at: datetime
    outcome: OutcomeKind
    generation: int
    detail: str
    retry_at: datetime | None = None

    @property
    def human(self) -> bool:
        """Whether a person asked, as told by the name that the request carries."""
        return is_human(self.requested_by)


_ROLLOUT_SUFFIX = " (rollout "


def rollout_requester(requested_by: str, rollout_id: str) -> str:
    """The name under which a rollout asks on behalf of who began it; human if that one is."""
    return f"{requested_by or 'unnamed'}{_ROLLOUT_SUFFIX}{rollout_id})"


def is_rollout_request(requested_by: str) -> bool:
    """Whether a rollout asks: who waits for one box goes ahead of it."""
    return _ROLLOUT_SUFFIX in requested_by and requested_by.endswith(")")


def is_human(requested_by: str) -> bool:
    """Names of humans start with `admin`, by convention of the requests' senders."""
    return requested_by.startswith("admin")
