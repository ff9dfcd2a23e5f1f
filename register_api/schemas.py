"""The bodies that boxes send: which members are read, and within which bounds.

Members that are not read are accepted: runtimes in the field send more than this version knows.
"""

from math import isfinite
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from store.beats import Beat
from workflows.names import check_workspace_id

URL_LENGTH = 2048
TEXT_LENGTH = 2000
"""What is kept of a text in a beat. A longer one is cut: nobody's life depends on an error message."""


class BodyInvalid(ValueError):
    """The body does not fit its call; the text names the members, and repeats no value."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


def _check_url(url: str) -> str:
    """An http(s) URL that later traffic takes port and path from, or nothing in poll mode."""
    if not url:
        return url
    if any(not character.isprintable() or character.isspace() for character in url):
        raise ValueError("must not contain spaces or control characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL with a valid host and port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not carry credentials")
    if port == 0:
        raise ValueError("must not name port 0")
    return url


def _check_storable(card: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if not _is_storable(card):
        raise ValueError("must not contain NUL characters, NaN or infinity")
    return card


def _is_storable(value: JsonValue) -> bool:
    """Whether PostgreSQL's jsonb has room for it: parsers of JSON let more pass."""
    match value:
        case str():
            return "\0" not in value
        case float():
            return isfinite(value)
        case list():
            return all(map(_is_storable, value))
        case dict():
            return all("\0" not in name and _is_storable(one) for name, one in value.items())
        case _:
            return True


def _cut(text: str) -> str:
    return text.replace("\0", "")[:TEXT_LENGTH]


WorkspaceId = Annotated[str, AfterValidator(check_workspace_id)]
Text = Annotated[str, AfterValidator(_cut)]


class RegisterBody(_Body):
    """`POST /registry/register`."""

    id: WorkspaceId
    url: Annotated[str, Field(max_length=URL_LENGTH), AfterValidator(_check_url)] = ""
    agent_card: Annotated[dict[str, JsonValue], AfterValidator(_check_storable)] | None = None
    delivery_mode: Literal["push", "poll"] | None = None


class HeartbeatBody(_Body):
    """`POST /registry/heartbeat`. Null stands for a member that was left out."""

    workspace_id: WorkspaceId
    active_tasks: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    is_busy: bool | None = None
    runtime_state: Text | None = None
    error_rate: Annotated[float, Field(ge=0)] | None = None
    sample_error: Text | None = None
    current_task: Text | None = None
    uptime_seconds: Annotated[float, Field(ge=0, le=2**53)] | None = None

    def beat(self) -> Beat:
        """The beat as it is stored."""
        return Beat(
            active_tasks=self.active_tasks or 0,
            is_busy=self.is_busy,
            runtime_state=self.runtime_state,
            error_rate=self.error_rate or 0.0,
            sample_error=self.sample_error or "",
            current_task=self.current_task or "",
            uptime_seconds=int(self.uptime_seconds or 0),
        )


B = TypeVar("B", bound=BaseModel)


def read(model: type[B], body: bytes) -> B:
    """Validate a body; raises `BodyInvalid` with one line that names each wrong member."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        raise BodyInvalid("; ".join(_told(fault["loc"], fault["msg"]) for fault in faults[:5])) from None


def _told(location: tuple[int | str, ...], message: str) -> str:
    member = ".".join(str(part)[:64] for part in location[:4]) or "body"
    return f"{member}: {message.removeprefix('Value error, ')[:200]}"
