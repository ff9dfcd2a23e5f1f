"""Requests of operators and programs, and their outcomes, as values. Standard library only.

`admission` decides the outcome.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class RequestKind(StrEnum):
    """The kinds of requests."""

    RECREATE = "recreate"
    STOP = "stop"
    START = "start"
    DELETE = "delete"
    DECLARE_DEAD = "declare_dead"
    UNKNOWN = "unknown"
    """A signal with an unknown name, or a cancellation. It is recorded as rejected."""


class OutcomeKind(StrEnum):
    """The outcomes of a request."""

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
    """Only for `declare_dead`."""

    @property
    def automatic(self) -> bool:
        """Whether a program sent the request."""
        return not is_human(self.requested_by)

    @property
    def forced(self) -> bool:
        """Whether `force` has an effect: only in an operator's request."""
        return self.force and not self.automatic


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request with its outcome."""

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


_ROLLOUT_SUFFIX = " (rollout "


def rollout_requester(requested_by: str, rollout_id: str) -> str:
    """The `requested_by` of a rollout's requests: manual if an operator started the rollout."""
    return f"{requested_by or 'unnamed'}{_ROLLOUT_SUFFIX}{rollout_id})"


def is_rollout_request(requested_by: str) -> bool:
    """Whether a rollout sent the request. Such requests have a lower priority."""
    return _ROLLOUT_SUFFIX in requested_by and requested_by.endswith(")")


def is_human(requested_by: str) -> bool:
    """Whether an operator sent the request: by convention, operators' names start with `admin`."""
    return requested_by.startswith("admin")
