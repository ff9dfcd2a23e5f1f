"""Evidence as values: AWS's journal, PostgreSQL's changes, histories, responses to callers.

Standard library only; `collectors` gathers it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCall:
    """One entry of the AWS endpoint's journal."""

    at: float
    """Seconds since the epoch, here and everywhere below."""
    action: str
    outcome: str
    workspace: str | None
    generation: int | None
    instances: tuple[str, ...] = ()
    code: str | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An inserted or changed row of the product's tables, recorded by a trigger."""

    seq: int
    at: float
    transaction: int
    table: str
    workspace: str
    row: Mapping[str, object]
    """The row after the change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRequest:
    """A row of `requests`."""

    workspace: str
    request_id: str
    kind: str
    requested_by: str
    observed_generation: int | None
    outcome: str
    generation: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SentRequest:
    """A request that its sender knows was accepted: a signal, or an update with a response."""

    workspace: str
    request_id: str
    at: float
    outcome: str | None
    """The response; None for a signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedDelegation:
    """A delegation with a positive response to its source."""

    delegation_id: str
    target: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTruth:
    """A workspace's box according to PostgreSQL, at one moment."""

    at: float
    generation: int | None
    """Of the current box."""
    registered: bool
    live_tokens: int
    heartbeat_age: float | None
    not_processing: bool
    canary_answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSample:
    """The status from the API, and the truth just before and just after."""

    workspace: str
    at: float
    phase: str
    generation: int
    before: BoxTruth
    after: BoxTruth


@dataclass(frozen=True, slots=True, kw_only=True)
class UnauthorizedAttempt:
    """An attempt to get a token without evidence."""

    workspace: str
    at: float
    status: int
    got_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A row of the audit log."""

    workspace: str
    at: float
    generation: int
    call: str
    verdict: str
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event of a workflow's history."""

    workspace: str
    at: float
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """A run of a workspace's workflow, and the result of replaying its history."""

    workspace: str
    run_id: str
    at: float
    """Its last event."""
    failure: str | None
    """Errors that `onebox replay` reports."""
    reset: bool
    """Whether it was reset: another run has replaced it, from the divergence on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietPeriod:
    """A settled period without requests and faults."""

    began: float
    ended: float
    workspaces: tuple[str, ...]
    """Workspaces that were online throughout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsettledWorkspace:
    """A workspace that did not settle in time."""

    workspace: str
    at: float
    seen: str
    """Its last state."""
    unauthorized: bool
    """Whether its box runs and its heartbeats are answered with 401."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All evidence of a run."""

    aws_calls: tuple[AwsCall, ...] = ()
    changes: tuple[Change, ...] = ()
    recorded: tuple[RecordedRequest, ...] = ()
    sent: tuple[SentRequest, ...] = ()
    delegated: tuple[PromisedDelegation, ...] = ()
    status_samples: tuple[StatusSample, ...] = ()
    unauthorized_attempts: tuple[UnauthorizedAttempt, ...] = ()
    audited: tuple[AuditRow, ...] = ()
    events: tuple[Event, ...] = ()
    replayed: tuple[ReplayResult, ...] = ()
    quiet_periods: tuple[QuietPeriod, ...] = ()
    unsettled: tuple[UnsettledWorkspace, ...] = ()
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Owner of each IP address: workspace and generation."""
    processed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By target: the IDs that its runtimes recorded as processed."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets by description."""
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Texts by location; none may contain a secret."""
    stale_after: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One violation of an invariant."""

    invariant: str
    workspace: str
    at: float
    what: str
    timeline: tuple[str, ...] = ()
