"""Every error code with its HTTP status, message, and the action that the caller should take."""

from dataclasses import dataclass
from enum import StrEnum


class Action(StrEnum):
    """What a box should do next."""

    RETRY = "retry"
    REREGISTER = "reregister"
    SHUTDOWN = "shutdown"
    CONTACT_OPERATOR = "contact_operator"
    NONE = "none"


class ErrorCode(StrEnum):
    """What went wrong, for programs to compare."""

    TOKEN_MISSING = "token_missing"  # noqa: S105 - a code, no credential
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a code, no credential
    REREGISTER_REQUIRED = "reregister_required"
    FORBIDDEN = "forbidden"
    WORKSPACE_UNKNOWN = "workspace_unknown"
    WORKSPACE_REMOVED = "workspace_removed"
    WORKSPACE_STOPPED = "workspace_stopped"
    SUPERSEDED = "superseded"
    INSTANCE_NOT_READY = "instance_not_ready"
    TOKEN_IN_USE = "token_in_use"  # noqa: S105 - a code, no credential
    MINT_LIMITED = "mint_limited"
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a code, no credential
    TOKENS_LIMITED = "tokens_limited"
    TARGET_UNREACHABLE = "target_unreachable"
    TARGET_UNKNOWN = "target_unknown"
    TARGET_DELETED = "target_deleted"
    TARGET_IS_SOURCE = "target_is_source"
    DELEGATION_UNKNOWN = "delegation_unknown"
    DELEGATION_NOT_YOURS = "delegation_not_yours"
    DELEGATION_ID_TAKEN = "delegation_id_taken"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    REQUEST_INVALID = "request_invalid"
    BODY_INVALID = "body_invalid"
    BODY_TOO_LARGE = "body_too_large"
    BODY_TOO_SLOW = "body_too_slow"
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported"
    PATH_UNKNOWN = "path_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_READY = "not_ready"
    INTERNAL_ERROR = "internal_error"


@dataclass(frozen=True, slots=True)
class ErrorSpec:
    """How an error code is reported."""

    status: int
    error: str
    """The message; clients log it."""
    action: Action
    hint: str = ""
    retry_after: int | None = None
    """Default in seconds. An error with this value is retryable."""


_SHUTDOWN_HINT = "stop the runtime and power off; this box no longer serves the workspace"
_CREDENTIAL_HINT = (
    "send the box's instance token, or the bootstrap secret from its user data; "
    "check that the secret is from this control plane"
)
_RETRY_HINT = "retry the same call with backoff"

ERROR_SPECS: dict[ErrorCode, ErrorSpec] = {
    ErrorCode.TOKEN_MISSING: ErrorSpec(
        401, "missing workspace auth token", Action.CONTACT_OPERATOR, _CREDENTIAL_HINT
    ),
    ErrorCode.TOKEN_INVALID: ErrorSpec(
        401, "invalid workspace auth token", Action.CONTACT_OPERATOR, _CREDENTIAL_HINT
    ),
    ErrorCode.REREGISTER_REQUIRED: ErrorSpec(
        401,
        "a live instance token is required",
        Action.REREGISTER,
        "register with the bootstrap secret, then retry with the token from the response",
    ),
    ErrorCode.FORBIDDEN: ErrorSpec(
        403,
        "API tokens cannot manage tokens",
        Action.CONTACT_OPERATOR,
        "use the instance token of the workspace's box, or an operator's token",
    ),
    ErrorCode.WORKSPACE_UNKNOWN: ErrorSpec(
        404,
        "workspace not found",
        Action.CONTACT_OPERATOR,
        "this control plane has no workspace with this ID; check WORKSPACE_ID and PLATFORM_URL",
    ),
    ErrorCode.WORKSPACE_REMOVED: ErrorSpec(410, "the workspace was deleted", Action.SHUTDOWN, _SHUTDOWN_HINT),
    ErrorCode.WORKSPACE_STOPPED: ErrorSpec(410, "the workspace is stopped", Action.SHUTDOWN, _SHUTDOWN_HINT),
    ErrorCode.SUPERSEDED: ErrorSpec(
        410, "this box was replaced by a newer one", Action.SHUTDOWN, _SHUTDOWN_HINT
    ),
    ErrorCode.INSTANCE_NOT_READY: ErrorSpec(
        503, "the launch of this box has not been recorded yet", Action.RETRY, _RETRY_HINT, 5
    ),
    ErrorCode.TOKEN_IN_USE: ErrorSpec(
        503,
        "the active token was used in the last 60 seconds",
        Action.RETRY,
        "a new token is issued after 60 s without use of the active one; a second process may be using it",
        60,
    ),
    ErrorCode.MINT_LIMITED: ErrorSpec(
        503,
        "too many tokens were issued to this box in the last 10 minutes",
        Action.RETRY,
        "the box keeps losing its token; check its configs directory",
        120,
    ),
    ErrorCode.PLATFORM_UNAVAILABLE: ErrorSpec(
        503, "the control plane is temporarily unavailable", Action.RETRY, _RETRY_HINT, 5
    ),
    ErrorCode.TOKEN_UNKNOWN: ErrorSpec(
        404,
        "token not found",
        Action.NONE,
        "the token is revoked, belongs to another workspace, or never existed",
    ),
    ErrorCode.TOKENS_LIMITED: ErrorSpec(
        409, "the workspace has too many API tokens", Action.NONE, "revoke unused API tokens"
    ),
    ErrorCode.TARGET_UNREACHABLE: ErrorSpec(
        503,
        "the workspace has no reachable box",
        Action.RETRY,
        "its box is stopped or starting, or does not accept calls (poll mode)",
        30,
    ),
    ErrorCode.TARGET_UNKNOWN: ErrorSpec(404, "target workspace not found", Action.NONE, "check target_id"),
    ErrorCode.TARGET_DELETED: ErrorSpec(
        409, "the target workspace was deleted", Action.NONE, "choose another target"
    ),
    ErrorCode.TARGET_IS_SOURCE: ErrorSpec(
        400, "a workspace cannot delegate to itself", Action.NONE, "choose another target"
    ),
    ErrorCode.DELEGATION_UNKNOWN: ErrorSpec(
        404, "delegation not found", Action.NONE, "check the delegation ID and the workspace"
    ),
    ErrorCode.DELEGATION_NOT_YOURS: ErrorSpec(
        403,
        "only the target may update this delegation",
        Action.NONE,
        "the source may update only delegations that it recorded; otherwise read the list of delegations",
    ),
    ErrorCode.DELEGATION_ID_TAKEN: ErrorSpec(
        409, "the delegation ID is already in use", Action.NONE, "choose another ID, preferably a UUID"
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ErrorSpec(
        409,
        "the idempotency key or ID was used for another task or target",
        Action.NONE,
        "use a new key for other work; a key always stands for the same delegation",
    ),
    ErrorCode.REQUEST_INVALID: ErrorSpec(400, "invalid request", Action.CONTACT_OPERATOR),
    ErrorCode.BODY_INVALID: ErrorSpec(400, "invalid request body", Action.CONTACT_OPERATOR),
    ErrorCode.BODY_TOO_LARGE: ErrorSpec(413, "the request body is too large", Action.CONTACT_OPERATOR),
    ErrorCode.BODY_TOO_SLOW: ErrorSpec(
        408, "timed out waiting for the request body", Action.RETRY, _RETRY_HINT, 5
    ),
    ErrorCode.MEDIA_TYPE_UNSUPPORTED: ErrorSpec(
        415,
        "the request body must be JSON",
        Action.CONTACT_OPERATOR,
        "send Content-Type: application/json without compression",
    ),
    ErrorCode.PATH_UNKNOWN: ErrorSpec(404, "path not found", Action.NONE),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorSpec(405, "method not allowed", Action.NONE),
    ErrorCode.NOT_READY: ErrorSpec(503, "not ready", Action.RETRY, _RETRY_HINT, 5),
    ErrorCode.INTERNAL_ERROR: ErrorSpec(
        500,
        "internal error",
        Action.RETRY,
        "retry with backoff; search the control plane's log for the request ID",
        30,
    ),
}
