"""Judging what an agent answered to `message/send`. Pure.

Only a finished result counts. The agent's own words are quoted nowhere: they end in records and histories.
"""

import json

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
        number = f" {code}" if isinstance(code, int) and not isinstance(code, bool) else ""
        return _no("canary_error", f"the agent answered with JSON-RPC error{number}")
    result = answer.get("result")
    if not isinstance(result, dict):
        return _no("canary_error", "the answer holds no result")
    if result.get("kind") == "task" or "status" in result:
        return _judge_task(result.get("status"))
    return _judge_message(result)


def _judge_task(status: object) -> CanaryResult:
    state = status.get("state") if isinstance(status, dict) else None
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
