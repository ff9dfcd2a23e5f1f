"""Judging what an agent answered to `message/send`. Pure.

Only a finished result counts as processed, and a bare 2xx as no more than delivered. The agent's own words go
into the preview of a delegation's result, which is for the ledger, and nowhere else.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from activities.ports import CanaryResult

_UNFINISHED = frozenset({"submitted", "working", "input-required", "unknown"})


def judge_answer(status: int, body: bytes) -> CanaryResult:
    """Whether this HTTP answer carries the agent's finished answer (A2A, JSON-RPC)."""
    if status != 200:
        return _no("canary_refused", f"the box answered with HTTP {status}")
    try:
        answer: object = json.loads(body)
    except (ValueError, RecursionError):
        return _no("canary_error", "the answer is not JSON")
    if not isinstance(answer, dict):
        return _no("canary_error", "the answer is not a JSON-RPC object")
    error = answer.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        number = _number(code)
        return _no("canary_error", f"the agent answered with JSON-RPC error{number}")
    result = answer.get("result")
    if not isinstance(result, dict):
        return _no("canary_error", "the answer holds no result")
    if result.get("kind") == "task" or "status" in result:
        return _judge_task(result.get("status"))
    return _judge_message(result)


def _judge_task(status: object) -> CanaryResult:
    state = _state(status)
    if state == "completed":
        return CanaryResult(answered=True)
    if state in _UNFINISHED:
        return _no("canary_not_finished", f"the agent's task is {state}")
    if state in ("failed", "rejected", "canceled", "auth-required"):
        return _no("canary_error", f"the agent's task is {state}")
    return _no("canary_error", "the agent's task has a state that A2A does not know")


def _judge_message(message: dict[str, object]) -> CanaryResult:
    parts = message.get("parts")
    if message.get("role") != "agent" or not isinstance(parts, list):
        return _no("canary_error", "the result is neither a message of the agent nor a task")
    if not any(isinstance(part, dict) and part for part in parts):
        return _no("canary_not_finished", "the agent's message is empty")
    return CanaryResult(answered=True)


def _no(code: str, detail: str) -> CanaryResult:
    return CanaryResult(answered=False, code=code, detail=detail)


class Heard(StrEnum):
    """What an answer to a delegation amounts to."""

    PROCESSED = "processed"
    """It carries the finished result."""
    IN_PROGRESS = "in_progress"
    TAKEN = "taken"
    """The transport answered 2xx, no more: 202, queued, submitted, or nothing that can be read."""
    FAILED = "failed"
    """The target says that it failed."""
    REFUSED = "refused"
    """The target did not take it; another attempt may help, or a human."""
    BUSY = "busy"
    """The target is restarting, or has no room now."""


PREVIEW = 500
"""Characters of a result that the ledger keeps."""

MOST_PIECES = 500_000
"""Strings, lists, objects and commas of an answer. A large result is a long text, which is one piece; twelve
megabytes of `[],` took four seconds to read, in which the whole worker stood still."""

_BUSY = frozenset({429, 502, 503, 504})
_WORKING = frozenset({"working", "input-required"})
_BROKEN = frozenset({"failed", "rejected", "canceled", "auth-required"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was heard, and the words for it."""

    heard: Heard
    error: str = ""
    preview: str = ""


def hear(status: int, body: bytes) -> Judgement:
    """What a target's answer says of a delegation."""
    if status in _BUSY:
        return Judgement(heard=Heard.BUSY, error=f"the box answered with HTTP {status}")
    if not 200 <= status < 300:
        return Judgement(heard=Heard.REFUSED, error=f"the box answered with HTTP {status}")
    answer = _parsed(body) if status == 200 else None
    if answer is None:
        return Judgement(heard=Heard.TAKEN)
    error = answer.get("error")
    if error is not None:
        code = error.get("code") if isinstance(error, dict) else None
        number = _number(code)
        return Judgement(heard=Heard.REFUSED, error=f"the agent answered with JSON-RPC error{number}")
    result = answer.get("result")
    if not isinstance(result, dict):
        return Judgement(heard=Heard.TAKEN)
    if result.get("kind") == "task" or "status" in result:
        return _hear_task(result)
    if result.get("role") == "agent" and (preview := _preview(result)) is not None:
        return Judgement(heard=Heard.PROCESSED, preview=preview)
    return Judgement(heard=Heard.TAKEN)


def _hear_task(task: dict[str, object]) -> Judgement:
    status = task.get("status")
    state = _state(status)
    if state == "completed":
        return Judgement(heard=Heard.PROCESSED, preview=_preview(task) or "")
    if state in _WORKING:
        return Judgement(heard=Heard.IN_PROGRESS)
    if state in _BROKEN:
        return Judgement(
            heard=Heard.FAILED, error=f"the agent's task is {state}", preview=_preview(task) or ""
        )
    return Judgement(heard=Heard.TAKEN)


def _parsed(body: bytes) -> dict[str, object] | None:
    try:
        text = body.decode("utf-8-sig")
        answer: object = None if _is_crumbled(text) else json.loads(text)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _is_crumbled(text: str) -> bool:
    """Whether reading it would hold up everything else: it is one step, which no other thread interrupts."""
    bare = text.replace("\\\\", "").replace('\\"', "")  # now each quote begins a string, or ends one
    if bare.count('"') > 2 * MOST_PIECES:
        return True
    outside = "".join(bare.split('"')[::2])
    return sum(map(outside.count, "[{,")) > MOST_PIECES


def _preview(result: dict[str, object]) -> str | None:
    """The text of a message or of a task's artifacts; None where there is no part at all."""
    parts = list(_parts(result))
    if not parts:
        return None
    texts = [text for part in parts if isinstance(text := part.get("text"), str)]
    text = "\n".join(texts).replace("\0", "")[:PREVIEW]
    return text.encode(errors="replace").decode()  # JSON can hold half a character; PostgreSQL can't


def _parts(result: dict[str, object]) -> Iterator[dict[str, object]]:
    status = result.get("status")
    said = status.get("message") if isinstance(status, dict) else None
    artifacts = result.get("artifacts")
    holders = [*(artifacts if isinstance(artifacts, list) else []), said, result]
    for holder in holders:
        parts = holder.get("parts") if isinstance(holder, dict) else None
        yield from (
            (part for part in parts if isinstance(part, dict) and part) if isinstance(parts, list) else ()
        )


def _state(status: object) -> str | None:
    """The state of a task, if it is a word."""
    state = status.get("state") if isinstance(status, dict) else None
    return state if isinstance(state, str) else None


def _number(code: object) -> str:
    """An error's number, if it is one that JSON-RPC knows; it may have thousands of digits."""
    return f" {code}" if isinstance(code, int) and not isinstance(code, bool) and abs(code) < 1e9 else ""
