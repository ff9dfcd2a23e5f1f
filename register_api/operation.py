"""What is said of a call that the API answers: path, bodies, who may call, which errors are possible.

The calls themselves are listed in `operations`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from register_api.answers import Code
from workflows import names


class Caller(StrEnum):
    """Who may call."""

    ANYONE = "anyone"
    BOX = "box"
    """With the instance token, or with evidence of being the box."""
    READER = "reader"
    """The workspace's own live token, an API token of it, or an operator's."""
    KEEPER = "keeper"
    """The workspace's own live token, or an operator's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter in path, query or header."""

    name: str
    place: str
    about: str
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
    about: str
    answer: type[BaseModel]
    example: Mapping[str, Any] | Sequence[Any]
    """An answer."""
    status: int = 200
    body: type[BaseModel] | None = None
    body_example: Mapping[str, Any] = field(default_factory=dict)
    body_required: bool = True
    caller: Caller = Caller.ANYONE
    body_bytes: int | None = None
    """More than the limit for all: delegations carry up to a megabyte of text."""
    codes: tuple[Code, ...] = ()
    parameters: tuple[Parameter, ...] = ()


WORKSPACE_ID = Parameter(
    name="workspace_id",
    place="path",
    about="The workspace; a DNS label.",
    schema={"type": "string", "pattern": f"^{names.WORKSPACE_ID.pattern}$"},
    example="ws-1",
)

COMMON_CODES = (Code.PLATFORM_UNAVAILABLE, Code.INTERNAL_ERROR)
"""Any call can be answered so."""

BODY_CODES = (Code.BODY_INVALID, Code.BODY_TOO_LARGE, Code.BODY_TOO_SLOW, Code.MEDIA_TYPE_UNSUPPORTED)
CLOSED_CODES = (Code.SUPERSEDED, Code.WORKSPACE_REMOVED, Code.WORKSPACE_STOPPED)
IDENTITY_CODES = (Code.TOKEN_MISSING, Code.TOKEN_INVALID)
USE_CODES = (
    *IDENTITY_CODES,
    Code.REREGISTER_REQUIRED,
    Code.WORKSPACE_UNKNOWN,
    *CLOSED_CODES,
    Code.INSTANCE_NOT_READY,
)
