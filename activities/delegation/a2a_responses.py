"""Parses an agent's response to `message/send`. Pure.

Only a finished result counts as processed; a bare 2xx counts as delivered. Text of the agent is used only for
the preview of a delegation's result, which is stored in PostgreSQL.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from workflows.workspace.contract import CanaryResult

_UNFINISHED_STATES = frozenset({"submitted", "working", "input-required", "unknown"})


def parse_canary_response(status: int, body: bytes) -> CanaryResult:
    """Whether the HTTP response contains a finished answer of the agent (A2A, JSON-RPC)."""
    if status != 200:
        return _failed("canary_refused", f"the box answered with HTTP {status}")
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError):
        return _failed("canary_error", "the response is not JSON")
    if not isinstance(answer, dict):
        return _failed("canary_error", "the response is not a JSON-RPC object")
    error = answer.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        number = _number(code)
        return _failed("canary_error", f"the agent answered with JSON-RPC error{number}")
    result = answer.get("result")
    if not isinstance(result, dict):
        return _failed("canary_error", "the response contains no result")
    if result.get("kind") == "task" or "status" in result:
        return _parse_canary_task(result.get("status"))
    return _parse_canary_message(result)


def _parse_canary_task(status: object) -> CanaryResult:
    state = _state(status)
    if state == "completed":
        return CanaryResult(answered=True)
    if state in _UNFINISHED_STATES:
        return _failed("canary_not_finished", f"the agent's task is {state}")
    if state in ("failed", "rejected", "canceled", "auth-required"):
        return _failed("canary_error", f"the agent's task is {state}")
    return _failed("canary_error", "the agent's task has an unknown state")


def _parse_canary_message(message: dict[str, object]) -> CanaryResult:
    parts = message.get("parts")
    if message.get("role") != "agent" or not isinstance(parts, list):
        return _failed("canary_error", "the result is neither an agent message nor a task")
    if not any(isinstance(part, dict) and part for part in parts):
        return _failed("canary_not_finished", "the agent's message is empty")
    return CanaryResult(answered=True)


def _failed(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)


class Reply(StrEnum):
    """How a box responded to a delegation."""

    PROCESSED = "processed"
    """The response contains the finished result."""
    IN_PROGRESS = "in_progress"
    ACCEPTED = "accepted"
    """A 2xx status without a result: 202, queued, submitted, or an unreadable body."""
    FAILED = "failed"
    """The target reports that the task failed."""
    REFUSED = "refused"
    """The target rejected it. Another attempt or an operator may help."""
    UNAVAILABLE = "unavailable"
    """The target is restarting or overloaded."""


PREVIEW_CHARS = 500
"""Characters of a result that are stored."""

MAX_JSON_TOKENS = 500_000
"""Upper bound on JSON tokens. Parsing blocks the event loop: 12 MB of `[],` took 4 s. Large results are
single strings and stay far below it."""

_UNAVAILABLE_STATUSES = frozenset({429, 502, 503, 504})
_WORKING_STATES = frozenset({"working", "input-required"})
_FAILED_STATES = frozenset({"failed", "rejected", "canceled", "auth-required"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedReply:
    """The parsed response."""

    reply: Reply
    error: str = ""
    preview: str = ""


def parse_reply(status: int, body: bytes) -> ParsedReply:
    """Parse a target's response to a delegation."""
    if status in _UNAVAILABLE_STATUSES:
        return ParsedReply(reply=Reply.UNAVAILABLE, error=f"the box answered with HTTP {status}")
    if not 200 <= status < 300:
        return ParsedReply(reply=Reply.REFUSED, error=f"the box answered with HTTP {status}")
    answer = _parse_json(body) if status == 200 else None
    if answer is None:
        return ParsedReply(reply=Reply.ACCEPTED)
    error = answer.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        number = _number(code)
        return ParsedReply(reply=Reply.REFUSED, error=f"the agent answered with JSON-RPC error{number}")
    result = answer.get("result")
    if not isinstance(result, dict):
        return ParsedReply(reply=Reply.ACCEPTED)
    if result.get("kind") == "task" or "status" in result:
        return _parse_task(result)
    if result.get("role") == "agent" and (preview := _preview(result)) is not None:
        return ParsedReply(reply=Reply.PROCESSED, preview=preview)
    return ParsedReply(reply=Reply.ACCEPTED)


def _parse_task(task: dict[str, object]) -> ParsedReply:
    status = task.get("status")
    state = _state(status)
    if state == "completed":
        return ParsedReply(reply=Reply.PROCESSED, preview=_preview(task) or "")
    if state in _WORKING_STATES:
        return ParsedReply(reply=Reply.IN_PROGRESS)
    if state in _FAILED_STATES:
        return ParsedReply(
            reply=Reply.FAILED, error=f"the agent's task is {state}", preview=_preview(task) or ""
        )
    return ParsedReply(reply=Reply.ACCEPTED)


def _parse_json(body: bytes) -> dict[str, object] | None:
    try:
        text = body.decode("utf-8-sig")
        answer: object = None if _has_too_many_tokens(text) else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _has_too_many_tokens(text: str) -> bool:
    """Whether parsing would block for too long: `json.loads` holds the GIL for the whole text."""
    bare = text.replace("\\\\", "").replace('\\"', "")  # now each quote begins or ends a string
    if bare.count('"') > 2 * MAX_JSON_TOKENS:
        return True
    outside = "".join(bare.split('"')[::2])
    return sum(map(outside.count, "[{,")) > MAX_JSON_TOKENS


def _preview(result: dict[str, object]) -> str | None:
    """The text of a message or of a task's artifacts; None if it has no parts."""
    parts = list(_parts(result))
    if not parts:
        return None
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    text = "\n".join(texts).replace("\0", "")[:PREVIEW_CHARS]
    return text.encode(
        errors="replace"
    ).decode()  # JSON may contain lone surrogates, which PostgreSQL rejects


def _parts(result: dict[str, object]) -> Iterator[dict[str, object]]:
    status = result.get("status")
    message = status.get("message") if isinstance(status, dict) else None
    artifacts = result.get("artifacts")
    holders = [*(artifacts if isinstance(artifacts, list) else []), message, result]
    for holder in holders:
        parts = holder.get("parts") if isinstance(holder, dict) else None
        yield from (
            (part for part in parts if isinstance(part, dict) and part) if isinstance(parts, list) else ()
        )


def _state(status: object) -> str | None:
    """The state of a task, if it is a string."""
    state = status.get("state") if isinstance(status, dict) else None
    return state if isinstance(state, str) else None


def _number(code: object) -> str:
    """The error code for messages, if it is a plausible integer: it may have thousands of digits."""
    return f" {code}" if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1e9 else ""
