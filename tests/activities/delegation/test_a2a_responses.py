"""Parsing of responses to canaries: which count as finished."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.delegation.a2a_responses import parse_canary_response


def answer(result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "canary-ws-1", "result": result}).encode()


PART = {"kind": "text", "text": "ready"}


@pytest.mark.parametrize(
    "result",
    [
        {"kind": "message", "role": "agent", "messageId": "m", "parts": [PART]},
        {"role": "agent", "parts": [PART, {}]},
        {"kind": "task", "id": "t", "status": {"state": "completed"}},
        {"id": "t", "status": {"state": "completed"}, "artifacts": []},
    ],
)
def test_a_finished_result_is_an_answer(result: object) -> None:
    assert parse_canary_response(200, answer(result)).answered


@pytest.mark.parametrize("state", ["submitted", "working", "input-required", "unknown"])
def test_a_task_in_progress_is_not_finished(state: str) -> None:
    result = parse_canary_response(200, answer({"kind": "task", "status": {"state": state}}))
    assert not result.answered
    assert result.code == "canary_not_finished"


@pytest.mark.parametrize("state", ["failed", "rejected", "canceled", "auth-required", "nonsense", None, 3])
def test_a_failed_task_is_an_error(state: object) -> None:
    result = parse_canary_response(200, answer({"kind": "task", "status": {"state": state}}))
    assert not result.answered
    assert result.code == "canary_error"


@pytest.mark.parametrize("status", [201, 202, 204, 301, 401, 404, 429, 500, 503])
def test_any_status_but_200_is_a_refusal(status: int) -> None:
    result = parse_canary_response(status, answer({"role": "agent", "parts": [PART]}))
    assert (result.answered, result.code) == (False, "canary_refused")
    assert str(status) in result.detail


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"OK",
        b"\xff\xfe",
        b"[]",
        b'"ready"',
        b"null",
        b"{}",
        b'{"result": "ready"}',
        b'{"result": []}',
        b'{"result": null}',
        answer({"kind": "message", "role": "user", "parts": [PART]}),
        answer({"kind": "message", "role": "agent"}),
        answer({"kind": "message", "role": "agent", "parts": "ready"}),
        answer({"kind": "task"}),
        answer({"kind": "task", "status": "completed"}),
        answer({"status": "queued"}),
        b"[" * 200_000,
        b'{"jsonrpc": "2.0", "error": {"code": -32603, "message": "x"}}',
        b'{"error": "broken", "result": {"role": "agent", "parts": [{"text": "ready"}]}}',
    ],
)
def test_anything_else_is_an_error(body: bytes) -> None:
    result = parse_canary_response(200, body)
    assert (result.answered, result.code) == (False, "canary_error")
    assert result.detail


@pytest.mark.parametrize("parts", [[], [{}], ["ready"], [None]])
def test_an_empty_message_is_not_finished(parts: list[object]) -> None:
    result = parse_canary_response(200, answer({"kind": "message", "role": "agent", "parts": parts}))
    assert (result.answered, result.code) == (False, "canary_not_finished")


def test_the_text_of_the_agent_is_not_repeated() -> None:
    error = {"jsonrpc": "2.0", "error": {"code": -32000, "message": "token ob1.k1.1.abc", "data": "s3cret"}}
    result = parse_canary_response(200, json.dumps(error).encode())
    assert result.detail == "the agent answered with JSON-RPC error -32000"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser_of_canary_responses(body: bytes) -> None:
    assert not parse_canary_response(200, body).answered
