"""Models of the success responses and of the error body. Member names are part of the public API."""

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, RootModel

from register_api.http.error_codes import Action, ErrorCode
from workflows.delegation.rules import DelegationState
from workflows.workspace.enums import Phase


class _ResponseModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RegisterResponse(_ResponseModel):
    """The box is registered."""

    status: Literal["registered"] = "registered"
    auth_token: str | None = Field(
        default=None, min_length=43, max_length=43, exclude_if=lambda it: it is None
    )
    """The instance token, if the box needs one. It stays the same until its first use."""


class HeartbeatResponse(_ResponseModel):
    """The heartbeat was counted."""

    status: Literal["ok"] = "ok"
    lifecycle_generation: int
    """The generation that the box serves."""


class CardUpdated(_ResponseModel):
    """The agent card was stored."""

    status: Literal["updated"] = "updated"


class DiscoverResponse(_ResponseModel):
    """The URL at which a workspace's box accepts messages."""

    id: str
    url: str
    """The recorded address of the box, with the port and path that the box registered."""
    name: str
    """The name on its agent card, or the workspace's ID."""


class StateResponse(_ResponseModel):
    """Whether the calling box still serves the workspace."""

    workspace_id: str
    status: str
    """The workspace's phase, or `superseded`: then the box must power off."""
    paused: bool
    deleted: bool


class OpenDelegations(_ResponseModel):
    """The number of open delegations to the workspace in one state."""

    state: DelegationState
    count: int
    held: int
    """Dead letters: an operator sends them again or cancels them."""
    stalled: int
    oldest_at: AwareDatetime


class WorkspaceRecord(_ResponseModel):
    """The workspace record."""

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
    """Recreates accepted in the last 24 h."""
    last_error: dict[str, JsonValue] | None
    conditions: list[dict[str, JsonValue]]
    work: list[OpenDelegations] = []
    """Open delegations to the workspace, by state, with the time of the oldest."""


class Token(_ResponseModel):
    """A live token, without its value."""

    id: str
    kind: Literal["api", "instance"]
    name: str
    prefix: str = Field(min_length=8, max_length=8)
    state: Literal["pending", "active", "retiring"]
    generation: int | None
    """The generation of an instance token; null for an API token."""
    created_by: str
    created_at: AwareDatetime
    last_used_at: AwareDatetime | None


class TokenList(_ResponseModel):
    """The live tokens of a workspace, oldest first."""

    tokens: list[Token]
    count: int


class TokenCreated(_ResponseModel):
    """A new API token. Its value is shown only here."""

    id: str
    auth_token: str = Field(min_length=43, max_length=43)
    workspace_id: str
    name: str
    prefix: str
    message: str


class TokenRevoked(_ResponseModel):
    """The token was revoked."""

    status: Literal["revoked"] = "revoked"


class AuditEntry(_ResponseModel):
    """One decision about a caller."""

    id: int
    at: AwareDatetime
    call: str
    generation: int
    verdict: str
    bearer: str
    code: str
    """The error code, or the kind of success."""
    token_prefix: str | None
    """The prefix of the presented token, if it belongs to the workspace."""
    source: str | None
    from_box: bool
    """Whether the call came from the address recorded for the generation's instance."""
    alert: bool
    request_id: str
    repeats: int
    """How many equal refusals since the previous row have no row of their own."""


class AuditTrail(_ResponseModel):
    """Decisions about callers of a workspace, newest first."""

    entries: list[AuditEntry]
    next_before: int | None
    """Pass this as `before` to get the next page; null on the last page."""


class DelegationAccepted(_ResponseModel):
    """The delegation is stored and will be delivered."""

    delegation_id: str
    status: Literal["delegated"] = "delegated"
    target_id: str


class DelegationRecorded(_ResponseModel):
    """The delegation was recorded."""

    delegation_id: str
    status: Literal["recorded"] = "recorded"


class DelegationUpdated(_ResponseModel):
    """The delegation's status after the report."""

    status: Literal["queued", "dispatched", "in_progress", "completed", "failed"]
    delegation_id: str


class DelegationItem(_ResponseModel):
    """A delegation in its source's list."""

    id: str
    type: str
    source_id: str
    target_id: str
    summary: str
    """The beginning of the task."""
    status: str
    """A simplified state: `completed` only after the target has processed the task."""
    state: DelegationState
    created_at: AwareDatetime
    delegation_id: str
    error: str | None = Field(default=None, exclude_if=lambda it: it is None)
    response_preview: str | None = Field(default=None, exclude_if=lambda it: it is None)


class DelegationList(RootModel[list[DelegationItem]]):
    """The delegations that the workspace sent, newest first, at most 50."""


class Health(_ResponseModel):
    """The probe succeeded."""

    status: Literal["ok", "ready"]


class ErrorBody(BaseModel):
    """Every error: what went wrong and what the caller should do."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    error: str
    """A message for logs."""
    code: ErrorCode
    """A code for programs."""
    retryable: bool
    action: Action
    retry_after: int | None
    """Seconds to wait before the next attempt."""
    workspace_id: str | None
    request_id: str
    hint: str


class ProblemBody(ErrorBody):
    """The error as problem details (RFC 9457), if the request's `Accept` header requests them."""

    type: str
    title: str
    status: int
    detail: str
