"""The words that boxes are answered with: every error code, its status, and what the caller can do about it.

Chooses none of them. Standard library only.
"""

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
    """What went wrong, as a word that programs compare."""

    TOKEN_MISSING = "token_missing"  # noqa: S105 - a word, no credential
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a word, no credential
    REREGISTER_REQUIRED = "reregister_required"
    FORBIDDEN = "forbidden"
    WORKSPACE_UNKNOWN = "workspace_unknown"
    WORKSPACE_REMOVED = "workspace_removed"
    WORKSPACE_STOPPED = "workspace_stopped"
    SUPERSEDED = "superseded"
    INSTANCE_NOT_READY = "instance_not_ready"
    TOKEN_IN_USE = "token_in_use"  # noqa: S105 - a word, no credential
    MINT_LIMITED = "mint_limited"
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    TOKEN_UNKNOWN = "token_unknown"  # noqa: S105 - a word, no credential
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
    """How a code is told."""

    status: int
    error: str
    """The sentence that old clients log."""
    action: Action
    hint: str = ""
    retry_after: int | None = None
    """Seconds, where nothing tells better; its presence makes the answer a retryable one."""


_SHUTDOWN_HINT = "stop the runtime and power off; another box, or none, is meant to serve the workspace"
_CREDENTIAL_HINT = "a box proves itself with its instance token or with the bootstrap secret of its user data"

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
        "register again with the bootstrap secret, and use the token of the answer",
    ),
    ErrorCode.FORBIDDEN: ErrorSpec(
        403,
        "an API token may not do this",
        Action.CONTACT_OPERATOR,
        "use the token of the workspace's box, or an operator's",
    ),
    ErrorCode.WORKSPACE_UNKNOWN: ErrorSpec(
        404,
        "no such workspace",
        Action.CONTACT_OPERATOR,
        "the ID is not one of this control plane's; look at WORKSPACE_ID and PLATFORM_URL",
    ),
    ErrorCode.WORKSPACE_REMOVED: ErrorSpec(410, "the workspace was deleted", Action.SHUTDOWN, _SHUTDOWN_HINT),
    ErrorCode.WORKSPACE_STOPPED: ErrorSpec(410, "the workspace is stopped", Action.SHUTDOWN, _SHUTDOWN_HINT),
    ErrorCode.SUPERSEDED: ErrorSpec(
        410, "this box was replaced by a newer one", Action.SHUTDOWN, _SHUTDOWN_HINT
    ),
    ErrorCode.INSTANCE_NOT_READY: ErrorSpec(
        503, "the launch of this box is not recorded yet", Action.RETRY, "the same call again", 5
    ),
    ErrorCode.TOKEN_IN_USE: ErrorSpec(
        503,
        "the active token is in use",
        Action.RETRY,
        "a new token is given once the active one was unused for 60 s; a second process may hold it",
        60,
    ),
    ErrorCode.MINT_LIMITED: ErrorSpec(
        503,
        "too many tokens were given to this box lately",
        Action.RETRY,
        "the box loses its tokens again and again: look at its configs directory",
        120,
    ),
    ErrorCode.PLATFORM_UNAVAILABLE: ErrorSpec(
        503, "the control plane cannot answer now", Action.RETRY, "the same call again", 5
    ),
    ErrorCode.TOKEN_UNKNOWN: ErrorSpec(
        404, "no such token", Action.NONE, "it is another workspace's, was revoked already, or never was"
    ),
    ErrorCode.TOKENS_LIMITED: ErrorSpec(
        409, "the workspace has too many API tokens", Action.NONE, "revoke those that nobody uses"
    ),
    ErrorCode.TARGET_UNREACHABLE: ErrorSpec(
        503,
        "the workspace has no box that can be called now",
        Action.RETRY,
        "its box is stopped, on its way, or takes no calls (poll mode)",
        30,
    ),
    ErrorCode.TARGET_UNKNOWN: ErrorSpec(404, "no such target workspace", Action.NONE, "look at target_id"),
    ErrorCode.TARGET_DELETED: ErrorSpec(
        409, "the target workspace was deleted", Action.NONE, "choose another target"
    ),
    ErrorCode.TARGET_IS_SOURCE: ErrorSpec(
        400, "a workspace cannot delegate to itself", Action.NONE, "do it, or choose another target"
    ),
    ErrorCode.DELEGATION_UNKNOWN: ErrorSpec(404, "no such delegation of this workspace", Action.NONE),
    ErrorCode.DELEGATION_NOT_YOURS: ErrorSpec(
        403,
        "only the target of a delegation says how far it is",
        Action.NONE,
        "the source reads the list; of what it sends itself, and recorded, it may say so",
    ),
    ErrorCode.DELEGATION_ID_TAKEN: ErrorSpec(
        409, "the ID is another's", Action.NONE, "choose another one, a UUID"
    ),
    ErrorCode.IDEMPOTENCY_KEY_REUSED: ErrorSpec(
        409,
        "the key stands for another task or target",
        Action.NONE,
        "a key means the same delegation each time; use a new one for other work",
    ),
    ErrorCode.REQUEST_INVALID: ErrorSpec(
        400, "the request is not what this call takes", Action.CONTACT_OPERATOR
    ),
    ErrorCode.BODY_INVALID: ErrorSpec(400, "the body is not what this call takes", Action.CONTACT_OPERATOR),
    ErrorCode.BODY_TOO_LARGE: ErrorSpec(413, "the body is too large", Action.CONTACT_OPERATOR),
    ErrorCode.BODY_TOO_SLOW: ErrorSpec(
        408, "the body did not come in time", Action.RETRY, "the same call again", 5
    ),
    ErrorCode.MEDIA_TYPE_UNSUPPORTED: ErrorSpec(
        415,
        "the body must be JSON",
        Action.CONTACT_OPERATOR,
        "send Content-Type: application/json, not compressed",
    ),
    ErrorCode.PATH_UNKNOWN: ErrorSpec(404, "no such path", Action.NONE),
    ErrorCode.METHOD_NOT_ALLOWED: ErrorSpec(405, "this path does not take that method", Action.NONE),
    ErrorCode.NOT_READY: ErrorSpec(503, "not ready", Action.RETRY, "the same call again", 5),
    ErrorCode.INTERNAL_ERROR: ErrorSpec(
        500,
        "the control plane failed at this call",
        Action.RETRY,
        "the request ID finds the cause in the log",
        30,
    ),
}
