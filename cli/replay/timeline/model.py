"""The values that a story is made of: requests, generations, boxes, standings, and lines of a timeline.

They hold what was read; how it is put into words or drawn is others' work.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.requests import OutcomeKind, RequestKind
from workflows.workspace.state import Condition, LastError, Phase


class Lane(StrEnum):
    """What a line of the timeline is about."""

    REQUEST = "request"
    STEP = "step"
    """The control plane's own work in PostgreSQL, and its question to the agent."""
    AWS = "aws"
    """Calls of EC2 and Route 53."""
    BOX = "box"
    STATUS = "status"
    ERROR = "error"
    WAIT = "wait"
    RUN = "run"
    AUDIT = "audit"
    """What a caller of the register API was told; from the database."""
    WORK = "work"
    """Delegations; from the database."""


class Tone(StrEnum):
    """Whether a line is good news."""

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
    """The event that tells of it; none for what stands in the database only."""
    details: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusChange:
    """What the workspace was from one instant on."""

    at: datetime
    phase: Phase
    generation: int
    conditions: tuple[Condition, ...]
    last_error: LastError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSummary:
    """A request, and what became of it."""

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
    """When its message reached the workflow; none for the lifecycle's own."""
    run: int | None
    event: int | None
    served_at: datetime | None
    """When what it asked for was there: the generation online, the workspace stopped or deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxLifetime:
    """One instance: from the call that launched it to the proof that it has ended."""

    instance_id: str
    generation: int
    begin: datetime
    begin_known: bool
    """False if it was there before the history begins."""
    running_at: datetime | None
    end: datetime | None
    """None: it was still there when the history ends."""
    ended_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a generation's way to `online`, and what it was spent on."""

    begin: datetime | None
    """None for a sum of many short ones."""
    seconds: float
    what: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One provisioning, with its milestones as far as the history has them."""

    number: int
    asked_at: datetime
    """When the request for it was accepted, or the workflow started."""
    asked_by: str
    opened_at: datetime | None
    launched_at: datetime | None
    """The earliest that its box can have been launched."""
    addressed_at: datetime | None
    registered_at: datetime | None
    """Its first successful register call, which minted the token."""
    first_heartbeat_at: datetime | None
    canary_at: datetime | None
    online_at: datetime | None
    ended_at: datetime | None
    """When the next one was asked for, or the workspace was stopped or deleted."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayVerdict:
    """Whether a run is deterministic under the present code."""

    run: int
    events: int
    problem: str | None
    """What differs: the event, what it records, what the code does instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All of it."""

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
    """What the database added, or why it did not."""

    @property
    def max_alive(self) -> int:
        """How many boxes were alive at once, at the most."""
        return max((_alive_at(self.boxes, life.begin) for life in self.boxes), default=0)


def _alive_at(boxes: tuple[BoxLifetime, ...], at: datetime) -> int:
    return sum(life.begin <= at and (life.end is None or at < life.end) for life in boxes)
