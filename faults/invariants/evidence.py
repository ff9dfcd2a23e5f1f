"""What really happened, as values: AWS's journal, PostgreSQL's changes, histories, callers' words.

Standard library only; how it is collected is `witnesses`'.
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
    """A row of the product's tables that was inserted or changed, as a trigger of ours saw it."""

    seq: int
    at: float
    transaction: int
    table: str
    workspace: str
    row: Mapping[str, object]
    """As it is from then on."""


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
    """A request whose sender knows that it was taken: signalled, or answered."""

    workspace: str
    request_id: str
    at: float
    outcome: str | None
    """What the sender was told; None for a signal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisedDelegation:
    """A delegation that its source was promised."""

    delegation_id: str
    target: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxTruth:
    """What PostgreSQL says of a workspace's box, at one moment."""

    at: float
    generation: int | None
    """Of the box that is current."""
    registered: bool
    live_tokens: int
    beat_age: float | None
    not_processing: bool
    canary_answered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusSample:
    """What the API showed of a workspace, and the truth just before and just after."""

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
    """A row of the audit trail."""

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
    """A run of a workspace's workflow, and what came of replaying its history."""

    workspace: str
    run_id: str
    at: float
    """Its last event."""
    failure: str | None
    """What `onebox replay` has to say against it."""
    reset: bool
    """Whether it was reset: another run has taken its place, from where the replay parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietPeriod:
    """A time in which nothing was asked and nothing injected, after everything had settled."""

    began: float
    ended: float
    workspaces: tuple[str, ...]
    """Those that were online all the while."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsettledWorkspace:
    """A workspace that was not at rest in time."""

    workspace: str
    at: float
    seen: str
    """What it was like."""
    unauthorized: bool
    """Whether its box runs and its beats are answered with 401."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All of it, of one campaign."""

    aws_calls: tuple[AwsCall, ...] = ()
    changes: tuple[Change, ...] = ()
    recorded: tuple[RecordedRequest, ...] = ()
    asked: tuple[SentRequest, ...] = ()
    delegated: tuple[PromisedDelegation, ...] = ()
    status_samples: tuple[StatusSample, ...] = ()
    unauthorized_attempts: tuple[UnauthorizedAttempt, ...] = ()
    audited: tuple[AuditRow, ...] = ()
    events: tuple[Event, ...] = ()
    replayed: tuple[ReplayResult, ...] = ()
    quiet_periods: tuple[QuietPeriod, ...] = ()
    unsettled: tuple[UnsettledWorkspace, ...] = ()
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Whose an IP address is: workspace and generation."""
    processed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By target: what its runtimes wrote down as processed."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By what they are: they themselves."""
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By where they stand: what must not hold a secret."""
    stale_after: float = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One case of an invariant that did not hold."""

    invariant: str
    workspace: str
    at: float
    what: str
    timeline: tuple[str, ...] = ()
