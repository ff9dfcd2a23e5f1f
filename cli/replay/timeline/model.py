"""The values of a timeline: requests, generations, boxes, status changes and entries."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Condition, LastError


class Lane(StrEnum):
    """The subject of an entry."""

    REQUEST = "request"
    STEP = "step"
    """Activities that use PostgreSQL or probe the agent."""
    AWS = "aws"
    """Activities that call EC2 or Route 53."""
    BOX = "box"
    STATUS = "status"
    ERROR = "error"
    WAIT = "wait"
    RUN = "run"
    AUDIT = "audit"
    """Calls to the register API, from the audit log."""
    WORK = "work"
    """Delegations, from the database."""


class Tone(StrEnum):
    """Whether an entry is good news."""

    PLAIN = "plain"
    GOOD = "good"
    BAD = "bad"
    IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the timeline."""

    at: datetime
    lane: Lane
    text: str
    tone: Tone = Tone.PLAIN
    run: int | None = None
    event: int | None = None
    """The history event of the entry; None if it comes from the database."""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """The status of the workspace from `at` until the next change."""

    at: datetime
    phase: Phase
    generation: int
    conditions: tuple[Condition, ...]
    last_error: LastError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """A request and its outcome."""

    request_id: str
    kind: RequestKind
    requested_by: str
    reason: str
    observed_generation: int | None
    force: bool
    outcome: OutcomeKind
    generation: int
    detail: str
    retry_at: datetime | None
    decided_at: datetime
    arrived_at: datetime | None
    """When its message reached the workflow; None for a request of the workflow itself."""
    run: int | None
    event: int | None
    served_at: datetime | None
    """When its goal was reached: the generation online, the workspace stopped or deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxLifetime:
    """One instance, from its launch to its confirmed termination."""

    instance_id: str
    generation: int
    begin: datetime
    begin_known: bool
    """False if the instance was launched before the history begins."""
    running_at: datetime | None
    end: datetime | None
    """None if the instance still existed when the history ends."""
    ended_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of the time from request to online, and its use."""

    begin: datetime | None
    """None for the sum of several short parts."""
    seconds: float
    what: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One generation, with the milestones that the history contains."""

    number: int
    asked_at: datetime
    """When its request was accepted, or the workflow started."""
    asked_by: str
    opened_at: datetime | None
    launched_at: datetime | None
    """The earliest possible launch of its box."""
    addressed_at: datetime | None
    registered_at: datetime | None
    """Its first successful register call, which minted the token."""
    first_heartbeat_at: datetime | None
    canary_at: datetime | None
    online_at: datetime | None
    ended_at: datetime | None
    """When the next generation was requested, or the workspace was stopped or deleted."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayVerdict:
    """Whether a run is deterministic with the current code."""

    run: int
    events: int
    problem: str | None
    """The first difference: its event, the recorded command, the command of the code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The timeline of a workspace."""

    workspace_id: str
    workflow_type: str
    begin: datetime
    end: datetime
    closed: bool
    verdicts: tuple[ReplayVerdict, ...]
    entries: tuple[Entry, ...]
    """Oldest first."""
    requests: tuple[RequestSummary, ...]
    boxes: tuple[BoxLifetime, ...]
    generations: tuple[Generation, ...]
    status_changes: tuple[StatusChange, ...]
    snapshots: tuple[StateSnapshot, ...]
    database_note: str
    """What was added from the database, or why nothing was."""

    @property
    def max_alive(self) -> int:
        """The largest number of boxes that existed at the same time."""
        return max((_alive_at(self.boxes, lifetime.begin) for lifetime in self.boxes), default=0)


def _alive_at(boxes: tuple[BoxLifetime, ...], at: datetime) -> int:
    return sum(it.begin <= at and (it.end is None or at < it.end) for it in boxes)


def clock(at: datetime) -> str:
    """The time of day with milliseconds."""
    return f"{at:%H:%M:%S.%f}"[:-3]


def requester(request: RequestSummary) -> str:
    """The name that the sender gave."""
    return request.requested_by or "an unnamed requester"
