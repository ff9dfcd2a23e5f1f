"""What is said of a call that the API answers: path, bodies, who may call, which errors are possible.

The calls themselves are listed in `operations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from register_api.http.error_codes import ErrorCode
from workflows.shared import workspace_ids


class AllowedCaller(StrEnum):
    """Who may call."""

    ANYONE = "anyone"
    BOX = "box"
    """With the instance token, or with evidence of being the box."""
    READER = "reader"
    """The workspace's own live token, an API token of it, or an operator's."""
    ADMIN = "admin"
    """The workspace's own live token, or an operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter in path, query or header."""

    name: str
    location: str
    description: str
    schema: Mapping[str, Any]
    example: Any
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call."""

    name: str
    """The handler that answers it."""
    method: str
    path: str
    description: str
    response_model: type[BaseModel]
    example: Mapping[str, Any] | Sequence[Any]
    """An answer."""
    status: int = 200
    body: type[BaseModel] | None = None
    body_example: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    caller: AllowedCaller = AllowedCaller.ANYONE
    body_bytes: int | None = None
    """More than the limit for all: delegations carry up to a megabyte of text."""
    codes: tuple[ErrorCode, ...] = ()
    parameters: tuple[Parameter, ...] = ()


WORKSPACE_ID = Parameter(
    name="workspace_id",
    location="path",
    description="The workspace; a DNS label.",
    schema={"type": "string", "pattern": f"^{workspace_ids.WORKSPACE_ID.pattern}$"},
    example="ws-1",
)

COMMON_CODES = (ErrorCode.PLATFORM_UNAVAILABLE, ErrorCode.INTERNAL_ERROR)
"""Any call can be answered so."""

BODY_CODES = (
    ErrorCode.BODY_INVALID,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.BODY_TOO_SLOW,
    ErrorCode.MEDIA_TYPE_UNSUPPORTED,
)
CLOSED_CODES = (ErrorCode.SUPERSEDED, ErrorCode.WORKSPACE_REMOVED, ErrorCode.WORKSPACE_STOPPED)
IDENTITY_CODES = (ErrorCode.TOKEN_MISSING, ErrorCode.TOKEN_INVALID)
USE_CODES = (
    *IDENTITY_CODES,
    ErrorCode.REREGISTER_REQUIRED,
    ErrorCode.WORKSPACE_UNKNOWN,
    *CLOSED_CODES,
    ErrorCode.INSTANCE_NOT_READY,
)
