"""The types that describe an endpoint, and what several endpoints share. `endpoints` lists them all."""

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
    """The workspace's box, by its instance token or other evidence."""
    READER = "reader"
    """The holder of a live token of the workspace, of one of its API tokens, or of an operator's token."""
    ADMIN = "admin"
    """The holder of a live token of the workspace, or of an operator's token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter in path, query or header."""

    name: str
    location: str
    description: str
    schema: Mapping[str, Any]
    example: Any
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An endpoint: one method of one path."""

    name: str
    """The name of its handler, in metrics and in the OpenAPI document."""
    method: str
    path: str
    description: str
    response_model: type[BaseModel]
    example: Mapping[str, Any] | Sequence[Any]
    """An example of the response."""
    status: int = 200
    body: type[BaseModel] | None = None
    body_example: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    caller: AllowedCaller = AllowedCaller.ANYONE
    body_bytes: int | None = None
    """Maximum size of the body, if not the default: delegations carry up to a megabyte of text."""
    codes: tuple[ErrorCode, ...] = ()
    parameters: tuple[Parameter, ...] = ()


WORKSPACE_ID = Parameter(
    name="workspace_id",
    location="path",
    description="The workspace's ID, a DNS label.",
    schema={"type": "string", "pattern": f"^{workspace_ids.WORKSPACE_ID.pattern}$"},
    example="ws-1",
)

COMMON_CODES = (ErrorCode.PLATFORM_UNAVAILABLE, ErrorCode.INTERNAL_ERROR)
"""Every endpoint can return these."""

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
