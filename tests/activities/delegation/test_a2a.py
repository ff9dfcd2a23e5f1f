"""Parsing of responses to delegations: processed only with a finished result, and never an exception."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.delegation.a2a_responses import (
    MAX_JSON_TOKENS,
    PREVIEW_CHARS,
    ParsedReply,
    Reply,
    parse_canary_response,
    parse_reply,
)

PART = {"kind": "text", "text": "42"}
MESSAGE = {"kind": "message", "role": "agent", "messageId": "m", "parts": [PART]}


def answer(result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": "d-1", "result": result}).encode()


def task(state: object, **more: object) -> bytes:
    return answer({"kind": "task", "id": "t", "status": {"state": state}, **more})


TAKEN = ParsedReply(reply=Reply.ACCEPTED)


def test_a_message_of_the_agent_is_the_finished_result() -> None:
    assert parse_reply(200, answer(MESSAGE)) == ParsedReply(reply=Reply.PROCESSED, preview="42")


@pytest.mark.parametrize(
    ("state", "reply"),
    [
        ("completed", Reply.PROCESSED),
        ("working", Reply.IN_PROGRESS),
        ("input-required", Reply.IN_PROGRESS),
        ("submitted", Reply.ACCEPTED),
        ("unknown", Reply.ACCEPTED),
        ("failed", Reply.FAILED),
        ("rejected", Reply.FAILED),
        ("canceled", Reply.FAILED),
        ("auth-required", Reply.FAILED),
        ("COMPLETED", Reply.ACCEPTED),
        ("nonsense", Reply.ACCEPTED),
        ("", Reply.ACCEPTED),
        (None, Reply.ACCEPTED),
        (True, Reply.ACCEPTED),
        (1, Reply.ACCEPTED),
    ],
)
def test_each_state_of_a_task_is_parsed(state: object, reply: Reply) -> None:
    found = parse_reply(200, task(state))
    assert found.reply is reply
    assert (found.error != "") == (reply is Reply.FAILED)


@pytest.mark.parametrize("status", [201, 202, 203, 204, 206, 299])
def test_another_2xx_is_a_delivery_whatever_its_body(status: int) -> None:
    for body in (b"", b"queued", answer(MESSAGE), task("completed"), b'{"error": {"code": 1}}'):
        assert parse_reply(status, body) == TAKEN


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"null",
        b"[]",
        b'"completed"',
        b"{}",
        b'{"status": "queued"}',
        b'{"result": null}',
        b'{"result": "completed"}',
        b'{"result": [{"state": "completed"}]}',
        b'{"status": {"state": "completed"}}',  # no JSON-RPC result
        b"\xff\xfe{}",
        b"[" * 200_000,
        b'{"result":' * 100_000,
        answer({"status": "queued"}),
        answer({"status": "completed"}),
        answer({"kind": "task"}),
        answer({"kind": "message", "role": "user", "parts": [PART]}),
        answer({"kind": "message", "role": "agent"}),
        answer({"role": "agent", "parts": "42"}),
        answer({"role": "agent", "parts": [[], "42", None, {}]}),
    ],
)
def test_an_unfinished_result_is_only_a_delivery(body: bytes) -> None:
    assert parse_reply(200, body) == TAKEN


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_box_is_unavailable(status: int) -> None:
    found = parse_reply(status, answer(MESSAGE))
    assert found == ParsedReply(reply=Reply.UNAVAILABLE, error=f"the box answered with HTTP {status}")


@pytest.mark.parametrize("status", [100, 199, 300, 307, 400, 401, 404, 408, 413, 422, 500, 501, 505, 599])
def test_any_other_status_is_a_refusal(status: int) -> None:
    found = parse_reply(status, answer(MESSAGE))
    assert found == ParsedReply(reply=Reply.REFUSED, error=f"the box answered with HTTP {status}")


@pytest.mark.parametrize(
    ("error", "number"),
    [
        ({"code": -32603, "message": "s3cret"}, " -32603"),
        ({"code": True, "message": "s3cret"}, ""),
        ({"code": "s3cret"}, ""),
        ({}, ""),
        ("s3cret", ""),
        (0, ""),
        ([], ""),
    ],
)
def test_an_error_of_the_agent_is_a_refusal_without_its_text(error: object, number: str) -> None:
    body = json.dumps({"jsonrpc": "2.0", "error": error, "result": MESSAGE}).encode()
    found = parse_reply(200, body)
    assert found == ParsedReply(reply=Reply.REFUSED, error=f"the agent answered with JSON-RPC error{number}")


def test_a_null_error_with_a_result_is_no_error() -> None:
    body = json.dumps({"error": None, "result": MESSAGE}).encode()
    assert parse_reply(200, body).reply is Reply.PROCESSED


def test_the_preview_joins_artifacts_status_and_message() -> None:
    status = {"state": "completed", "message": {"role": "agent", "parts": [{"text": "done"}]}}
    result = {
        "kind": "task",
        "status": status,
        "artifacts": [{"parts": [PART, {"kind": "data", "data": {}}]}, None, {"parts": 3}],
    }
    assert parse_reply(200, answer(result)) == ParsedReply(reply=Reply.PROCESSED, preview="42\ndone")


def test_a_failed_task_keeps_the_text_of_the_agent() -> None:
    status = {"state": "failed", "message": {"parts": [{"text": "the disk is full"}]}}
    found = parse_reply(200, answer({"kind": "task", "status": status}))
    assert (found.reply, found.preview) == (Reply.FAILED, "the disk is full")
    assert found.error == "the agent's task is failed"


def test_a_preview_is_bounded_and_without_nul() -> None:
    text = "\0a😀" * 10_000
    found = parse_reply(200, answer({**MESSAGE, "parts": [{"text": text}, PART]}))
    assert found.preview == ("a😀" * 250)
    assert len(found.preview) == PREVIEW_CHARS == 500


def test_a_large_text_is_one_token_whatever_its_content() -> None:
    text = ', "[{\\' * MAX_JSON_TOKENS
    assert parse_reply(200, answer({**MESSAGE, "parts": [{"text": text}]})).preview == text[:PREVIEW_CHARS]


@pytest.mark.parametrize("crumb", ["[],", "{},", "0,", '"",', '{"a":{}},', '"\\\\",'])
def test_a_result_with_too_many_tokens_is_not_parsed(crumb: str) -> None:
    def of(crumbs: int) -> bytes:
        return answer(MESSAGE)[:-1] + f', "x": [{crumb * crumbs}0]}}'.encode()

    assert parse_reply(200, of(1_000)).reply is Reply.PROCESSED
    assert parse_reply(200, of(MAX_JSON_TOKENS + 1)) == TAKEN


def test_a_result_of_other_media_is_processed_without_a_preview() -> None:
    found = parse_reply(200, answer({**MESSAGE, "parts": [{"kind": "file", "file": {"bytes": "AAAA"}}]}))
    assert found == ParsedReply(reply=Reply.PROCESSED)


@pytest.mark.parametrize("state", [[], {}, ["completed"], {"state": "completed"}])
def test_a_reply_with_a_state_of_any_type_is_parsed(state: object) -> None:
    assert parse_reply(200, task(state)) == TAKEN


@pytest.mark.parametrize("state", [[], {}])
def test_a_canary_response_with_a_state_of_any_type_is_parsed(state: object) -> None:
    assert parse_canary_response(200, task(state)).code == "canary_error"


def test_a_preview_can_be_stored() -> None:
    body = rb'{"result": {"role": "agent", "parts": [{"text": "half \ud83d"}]}}'
    parse_reply(200, body).preview.encode()


def test_the_number_of_an_error_is_bounded() -> None:
    found = parse_reply(200, b'{"error": {"code": ' + b"9" * 4000 + b"}}")
    assert len(found.error) < 500


# Objects and lists as the state of a task have their own tests above.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda it: (
        st.lists(it, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["result", "status", "kind", "role", "parts", "text", "error", "code", "artifacts"]
            ),
            it,
            max_size=4,
        )
    ),
    max_leaves=12,
)
statuses = st.sampled_from([200, 200, 200, 201, 202, 204, 301, 400, 429, 500, 503])
words = st.sampled_from(["completed", "working", "failed", "queued", "agent", "task", "message"])
results = st.fixed_dictionaries(
    {},
    optional={
        "kind": words | json_values,
        "role": words | json_values,
        "status": st.fixed_dictionaries(
            {}, optional={"state": words | st.none() | st.integers(), "message": json_values}
        )
        | json_values,
        "parts": st.lists(json_values, max_size=2) | json_values,
        "artifacts": json_values,
    },
)


@given(statuses, st.binary(max_size=200))
def test_no_bytes_break_the_parser_of_replies(status: int, body: bytes) -> None:
    assert parse_reply(status, body).reply is not Reply.PROCESSED


@given(statuses, results, json_values)
def test_only_a_finished_result_is_processed(status: int, result: dict[str, object], error: object) -> None:
    found = parse_reply(status, json.dumps({"result": result, "error": error}).encode())
    if found.reply is Reply.PROCESSED:
        assert status == 200
        assert error is None
        state = result.get("status")
        completed = isinstance(state, dict) and state.get("state") == "completed"
        assert completed or (result.get("role") == "agent" and "status" not in result)
    assert len(found.preview) <= PREVIEW_CHARS
    assert "\0" not in found.preview
    assert found.preview == "" or found.reply in (Reply.PROCESSED, Reply.FAILED)


@given(json_values, st.integers(0, 3_000))
def test_no_depth_breaks_the_parser_of_replies(value: object, depth: int) -> None:
    body = b'{"result": {"parts": ' + b"[" * depth + json.dumps(value).encode() + b"]" * depth + b"}}"
    assert parse_reply(200, body) == TAKEN
