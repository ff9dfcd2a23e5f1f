"""Models of the request bodies: members and their limits.

Unknown members are ignored: runtimes in the field send more than this version knows.
"""

from math import isfinite
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StrictBool, ValidationError

from store.registration.heartbeats import Heartbeat
from workflows.shared.workspace_ids import WORKSPACE_ID, check_workspace_id

URL_LENGTH = 2048
TEXT_LENGTH = 2000
"""Characters kept of a text in a heartbeat. A longer text is cut: a heartbeat must not fail because of it."""

FULL_HEARTBEAT = frozenset({"error_rate", "sample_error", "active_tasks", "current_task", "uptime_seconds"})
"""The members of every heartbeat that a runtime sends itself."""


class BodyInvalid(ValueError):
    """The body does not match its model. The message names members, never values."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


def _check_url(url: str) -> str:
    """An http(s) URL whose port and path later traffic uses; empty in poll mode."""
    if not url:
        return url
    if any(
        not character.isprintable() or character.isspace() or not character.isascii() for character in url
    ):
        raise ValueError("must be printable ASCII without spaces (RFC 3986, section 2)")
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


def _storable_card(card: dict[str, JsonValue]) -> dict[str, JsonValue]:
    return {_storable_text(name): _storable(value) for name, value in card.items()}


def _storable(value: JsonValue) -> JsonValue:
    """The value without NULs, which jsonb cannot store. NaN and infinity are refused."""
    match value:
        case str():
            return _storable_text(value)
        case float() if not isfinite(value):
            raise ValueError("must not contain NaN or infinity")
        case list():
            return [_storable(item) for item in value]
        case dict():
            return {_storable_text(name): _storable(item) for name, item in value.items()}
        case _:
            return value


def _storable_text(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _truncate(text: str) -> str:
    return text.replace("\0", "")[:TEXT_LENGTH]


_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_HOST = r"([A-Za-z0-9._-]+|\[::1?\]|\[[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}\])"
_URL_SCHEMA = {"pattern": f"^(https?://{_HOST}(:{_PORT})?(/[!-~]*)?)?$"}
"""The documented URL pattern. The API also accepts a few others, as short forms of IPv6 addresses."""

WorkspaceId = Annotated[
    str,
    AfterValidator(check_workspace_id),
    Field(json_schema_extra={"pattern": f"^{WORKSPACE_ID.pattern}$"}),
]
Card = Annotated[dict[str, JsonValue], AfterValidator(_storable_card)]
Text = Annotated[str, AfterValidator(_truncate)]


class RegisterBody(_Body):
    """`POST /registry/register`."""

    id: WorkspaceId
    url: Annotated[
        str, Field(max_length=URL_LENGTH, json_schema_extra=_URL_SCHEMA), AfterValidator(_check_url)
    ] = ""
    agent_card: Card | None = None
    delivery_mode: Literal["push", "poll"] | None = None


class HeartbeatBody(_Body):
    """`POST /registry/heartbeat`. Null is the same as a missing member."""

    workspace_id: WorkspaceId
    active_tasks: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    is_busy: StrictBool | None = None
    runtime_state: Text | None = None
    error_rate: Annotated[float, Field(ge=0)] | None = None
    sample_error: Text | None = None
    current_task: Text | None = None
    uptime_seconds: Annotated[float, Field(ge=0, le=2**53)] | None = None

    @property
    def is_full(self) -> bool:
        """Whether a runtime sent it itself: partial heartbeats of its tools omit most members."""
        return self.model_fields_set >= FULL_HEARTBEAT

    def heartbeat(self) -> Heartbeat:
        """The heartbeat as it is stored."""
        return Heartbeat(
            active_tasks=self.active_tasks or 0,
            is_busy=self.is_busy,
            runtime_state=self.runtime_state,
            error_rate=self.error_rate or 0.0,
            sample_error=self.sample_error or "",
            current_task=self.current_task or "",
            uptime_seconds=int(self.uptime_seconds or 0),
        )


class CardBody(_Body):
    """`POST /registry/update-card`."""

    workspace_id: WorkspaceId
    agent_card: Card


class TokenBody(_Body):
    """`POST /workspaces/{id}/tokens`. The body may be empty."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")] = ""
    """The token's purpose, shown in lists."""


TASK_BYTES = 1024 * 1024
"""One MiB of UTF-8."""


def _check_task(task: str) -> str:
    if "\0" in task:
        raise ValueError("must not contain NUL characters")
    if len(task.encode()) > TASK_BYTES:
        raise ValueError(f"must have at most {TASK_BYTES} bytes")
    return task


Task = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": r"^[^\x00]+$"}), AfterValidator(_check_task)
]
DelegationId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,128}$")]
ReportedText = Annotated[str, AfterValidator(_truncate)]


class DelegateBody(_Body):
    """`POST /workspaces/{id}/delegate`."""

    target_id: WorkspaceId
    task: Task
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] | None = None
    """Within a workspace, the same key stands for the same delegation."""
    idempotent: StrictBool = False
    """Whether the task may run twice: then it is delivered again if the box that started it is replaced."""


class RecordBody(_Body):
    """`POST /workspaces/{id}/delegations/record`."""

    target_id: WorkspaceId
    task: Task
    delegation_id: DelegationId


class UpdateBody(_Body):
    """`POST /workspaces/{id}/delegations/{delegation_id}/update`."""

    status: Literal["queued", "acked", "in_progress", "completed", "failed"]
    error: ReportedText | None = None
    response_preview: ReportedText | None = None


B = TypeVar("B", bound=BaseModel)


def parse_body(model: type[B], body: bytes) -> B:
    """The validated body; raises `BodyInvalid` with one line that names up to five wrong members."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise BodyInvalid(
            "; ".join(_format_error(detail["loc"], detail["msg"]) for detail in details[:5])
        ) from None


def _format_error(location: tuple[int | str, ...], message: str) -> str:
    member = ".".join(str(part)[:64] for part in location[:4]) or "body"
    return f"{member}: {message.removeprefix('Value error, ')[:200]}"
