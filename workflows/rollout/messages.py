"""The public contract of `RolloutWorkflow`: payloads of its start, its updates and its query.

Operators and the CLI depend on every name here.
"""

from datetime import datetime
from typing import Annotated

from pydantic import Field, model_validator

from workflows.rollout.rules import Outcome, RolloutState
from workflows.shared.payloads import Message
from workflows.shared.workspace_ids import WORKSPACE_ID

ENDED = "ended"
"""The final value of the search attribute `RollState`."""

MAX_MEMBERS = 5_000
"""The outcomes of all members are one payload, at most 2 MB in Temporal. Split larger fleets by queries."""

WorkspaceId = Annotated[str, Field(pattern=f"^{WORKSPACE_ID.pattern}$")]


class RolloutRequest(Message):
    """The members of a rollout and its limits. `{}` plans all workspaces, and waits for `proceed`."""

    query: Annotated[str, Field(max_length=2000)] = ""
    """A Temporal list filter over workspaces, such as `WorkspacePhase = "degraded"`."""
    workspaces: tuple[WorkspaceId, ...] = Field(default=(), max_length=MAX_MEMBERS)
    """Alternatively their IDs, in the order in which they start: the first is the canary."""
    image_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The image of their boxes, now and later. Members already online with it are not recreated."""
    max_unavailable: Annotated[float, Field(gt=0, le=MAX_MEMBERS)] = 0.10
    """Below 1 a share of the members, otherwise a number. Members that are down for any reason count."""
    max_failures: Annotated[int, Field(ge=1)] = 3
    """Number of failures that pauses the rollout. Before the canary is online, one failure does."""
    member_deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1800
    """From the request to online. Fence, boot and canary take at most 25 min."""
    force: bool = False
    """Bypass an exhausted recreate budget, as `force` in a manual request does."""
    start: bool = False
    """Start at once, without waiting for `proceed`."""
    requested_by: Annotated[str, Field(max_length=80)] = ""
    reason: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> "RolloutRequest":
        if self.query and self.workspaces:
            raise ValueError("query and workspaces exclude each other")
        if len(set(self.workspaces)) < len(self.workspaces):
            raise ValueError("workspaces contains an ID twice")
        if self.max_unavailable > 1 and self.max_unavailable % 1:
            raise ValueError("max_unavailable must be a share below 1, or a whole number")
        return self


class RolloutCommand(Message):
    """Who sends an operator's command to a rollout, and why."""

    reason: Annotated[str, Field(max_length=500)] = ""
    requested_by: Annotated[str, Field(max_length=80)] = ""


class RolloutMember(Message):
    """A workspace of the rollout, and its outcome."""

    workspace_id: str
    outcome: Outcome
    generation: int
    detail: str = ""


class RolloutProgress(Message):
    """The result of the `progress` query, and of the workflow."""

    rollout_id: str
    state: RolloutState | None
    """None while the rollout is being planned."""
    over: bool
    why: str
    """What the rollout waits for, or why it is in this state."""
    image_id: str | None
    allowed: int
    """How many members may be unavailable at once."""
    unavailable: int
    counts: dict[Outcome, int]
    members: tuple[RolloutMember, ...]
    began_at: datetime | None
    ended_at: datetime | None


class CommandResult(Message):
    """The result of an update."""

    taken: bool
    """Whether the command was accepted; `detail` says why not."""
    detail: str
    state: RolloutState | None
