"""The public contract of fleet rolls: the payloads of `RolloutWorkflow`, its updates and its query.

Admins depend on every name here; it decides nothing.
"""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from workflows.rollout.rules import Outcome, RolloutState
from workflows.shared.workspace_ids import WORKSPACE_ID

ROLLOUT_TYPE = "RolloutWorkflow"

ENDED = "ended"
"""The last word of the search attribute `RollState`."""

MAX_MEMBERS = 5_000
"""Their outcomes are one payload, of which Temporal takes 2 MB; a larger fleet is rolled by queries."""

WorkspaceId = Annotated[str, Field(pattern=f"^{WORKSPACE_ID.pattern}$")]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RolloutRequest(_Message):
    """What is to be rolled, and how carefully. `{}` plans all workspaces, and begins nothing."""

    query: Annotated[str, Field(max_length=2000)] = ""
    """A list filter over workspaces, as `WorkspacePhase = "degraded"`."""
    workspaces: tuple[WorkspaceId, ...] = Field(default=(), max_length=MAX_MEMBERS)
    """Or their IDs, in the order of their turns: the first is the canary."""
    image_id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """What their boxes are launched from, now and later. Who is online with it already is left alone."""
    max_unavailable: Annotated[float, Field(gt=0, le=MAX_MEMBERS)] = 0.10
    """Below 1, a share of the members; else their number. Whoever caused it counts."""
    max_failures: Annotated[int, Field(ge=1)] = 3
    """So many pause the rollout; until the canary is through, one does."""
    member_deadline_seconds: Annotated[float, Field(gt=0, le=86_400)] = 1800
    """From the request to online; a fence, a boot and a canary take 25 min at their longest."""
    force: bool = False
    """Pass a spent recreate budget, as an admin's `force` does."""
    start: bool = False
    """Begin at once, instead of waiting for `proceed`."""
    requested_by: Annotated[str, Field(max_length=80)] = ""
    reason: Annotated[str, Field(max_length=500)] = ""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> "RolloutRequest":
        if self.query and self.workspaces:
            raise ValueError("query or workspaces, not both")
        if len(set(self.workspaces)) < len(self.workspaces):
            raise ValueError("a workspace is named twice")
        if self.max_unavailable > 1 and self.max_unavailable % 1:
            raise ValueError("max_unavailable is a share below 1, or a whole number")
        return self


class RolloutCommand(_Message):
    """A human's word about a rollout."""

    reason: Annotated[str, Field(max_length=500)] = ""
    requested_by: Annotated[str, Field(max_length=80)] = ""


class RolloutMember(_Message):
    """A workspace of the rollout, and what became of it."""

    workspace_id: str
    outcome: Outcome
    generation: int
    detail: str = ""


class RolloutProgress(_Message):
    """The answer of the `progress` query, and, once it has ended, the report."""

    rollout_id: str
    state: RolloutState | None
    """None while the plan is made."""
    over: bool
    why: str
    """What it waits for, or why it is in that state."""
    image_id: str | None
    allowed: int
    """So many members may be unavailable at once."""
    unavailable: int
    counts: dict[Outcome, int]
    members: tuple[RolloutMember, ...]
    began_at: datetime | None
    ended_at: datetime | None


class CommandResult(_Message):
    """The answer of an update."""

    taken: bool
    detail: str
    state: RolloutState | None
