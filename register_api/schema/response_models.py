"""What is answered with success: the shapes that handlers fill and the OpenAPI document shows.

Decides nothing about who may see them. Members that outsiders use keep their names.
"""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, RootModel

from register_api.http.error_codes import Action, ErrorCode
from workflows.delegation.rules import DelegationState
from workflows.workspace.state import Phase


class _ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RegisterResponse(_ResponseModel):
    """The box is registered."""

    status: Literal["registered"] = "registered"
    auth_token: str | None = Field(
        default=None, min_length=43, max_length=43, exclude_if=lambda it: it is None
    )
    """The instance token, when one was minted; the same until it is used for the first time."""


class HeartbeatResponse(_ResponseModel):
    """The beat counts."""

    status: Literal["ok"] = "ok"
    lifecycle_generation: int
    """The generation that the box serves."""


class CardUpdated(_ResponseModel):
    """The card is stored."""

    status: Literal["updated"] = "updated"


class DiscoverResponse(_ResponseModel):
    """Where a workspace's box takes messages."""

    id: str
    url: str
    """At the address that the control plane recorded; port and path are those that the box registered."""
    name: str
    """Of its agent card, or else its ID."""


class StateResponse(_ResponseModel):
    """What a box has to know of its workspace."""

    workspace_id: str
    status: str
    """The phase, or `superseded`: then the box must power off."""
    paused: bool
    deleted: bool


class OpenDelegations(_ResponseModel):
    """Delegations to the workspace in one state."""

    state: DelegationState
    count: int
    held: int
    """Dead letters: a human sends them again, or gives them up."""
    stalled: int
    oldest_at: AwareDatetime


class WorkspaceRecord(_ResponseModel):
    """The record of a workspace."""

    workspace_id: str
    phase: Phase
    generation: int
    instance_id: str | None
    private_ip: str | None
    dns_name: str | None
    url: str | None
    last_heartbeat_at: AwareDatetime | None
    last_processed_at: AwareDatetime | None
    recreates: int
    """Accepted in the last 24 h."""
    last_error: dict[str, JsonValue] | None
    conditions: list[dict[str, JsonValue]]
    work: list[OpenDelegations] = []
    """What is under way to it, by state, with the age of the oldest: delivered and never acked shows here."""


class Token(_ResponseModel):
    """A live token, without its text."""

    id: str
    kind: Literal["api", "instance"]
    name: str
    prefix: str = Field(min_length=8, max_length=8)
    state: Literal["pending", "active", "retiring"]
    generation: int | None
    """Of an instance's token; API tokens have none."""
    created_by: str
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None


class TokenList(_ResponseModel):
    """The live tokens of a workspace, oldest first."""

    tokens: list[Token]
    count: int


class TokenCreated(_ResponseModel):
    """A new API token; its text is shown this once."""

    id: str
    auth_token: str = Field(min_length=43, max_length=43)
    workspace_id: str
    name: str
    prefix: str
    message: str


class TokenRevoked(_ResponseModel):
    """The token is live no more."""

    status: Literal["revoked"] = "revoked"


class AuditEntry(_ResponseModel):
    """One identity decision."""

    id: int
    at: AwareDatetime
    call: str
    generation: int
    verdict: str
    bearer: str
    code: str
    """The error's code, or a word for the success."""
    token_prefix: str | None
    """Of the presented token, if it is one of the workspace's."""
    source: str | None
    from_box: bool
    """Whether it came from the address recorded for the generation's instance."""
    alert: bool
    request_id: str
    repeats: int
    """Refusals like this one, since the last row of their kind, that got no row of their own."""


class AuditTrail(_ResponseModel):
    """Decisions about a workspace, newest first."""

    entries: list[AuditEntry]
    next_before: int | None
    """To be given as `before` for the next page; null on the last one."""


class DelegationAccepted(_ResponseModel):
    """The work is in the ledger, and will be delivered."""

    delegation_id: str
    status: Literal["delegated"] = "delegated"
    target_id: str


class DelegationRecorded(_ResponseModel):
    """It is written down."""

    delegation_id: str
    status: Literal["recorded"] = "recorded"


class DelegationUpdated(_ResponseModel):
    """How far it is now, as old clients read it."""

    status: Literal["queued", "dispatched", "in_progress", "completed", "failed"]
    delegation_id: str


class DelegationItem(_ResponseModel):
    """One delegation in its source's list."""

    id: str
    type: str
    source_id: str
    target_id: str
    summary: str
    """The beginning of the task."""
    status: str
    """What old clients read: `completed` once it was processed, and never before."""
    state: DelegationState
    created_at: AwareDatetime
    delegation_id: str
    error: str | None = Field(default=None, exclude_if=lambda it: it is None)
    response_preview: str | None = Field(default=None, exclude_if=lambda it: it is None)


class DelegationList(RootModel[list[DelegationItem]]):
    """The delegations of the workspace, newest first, at most 50; no end of one is missing for long."""


class Health(_ResponseModel):
    """The process answers."""

    status: Literal["ok", "ready"]


class ErrorBody(BaseModel):
    """Every error: what went wrong, and what the caller can do about it."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    error: str
    """A sentence for logs."""
    code: ErrorCode
    """A word for programs."""
    retryable: bool
    action: Action
    retry_after: int | None
    """Seconds."""
    workspace_id: str | None
    request_id: str
    hint: str


class ProblemBody(ErrorBody):
    """The same as problem details (RFC 9457), where `Accept` asks for them."""

    type: str
    title: str
    status: int
    detail: str
