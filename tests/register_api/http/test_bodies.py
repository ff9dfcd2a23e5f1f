"""Invalid, too large, too deep and too slow bodies, and the shape of every error."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace

import httpx2
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from register_api.app import create_app
from register_api.http.limits import Limits, too_deep
from store.db.pool import open_pool
from tests.register_api.platform import CONFIG, OPERATOR_TOKEN, PATIENCE, Box, Platform

pytestmark = pytest.mark.anyio

JSON = {"content-type": "application/json"}


async def post(platform: Platform, content: bytes | AsyncIterator[bytes], **headers: str) -> httpx2.Response:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return await platform.client.post("/registry/register", content=content, headers=JSON | names)


@pytest.mark.parametrize(
    ("body", "member"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b"nonsense", "body"),
        (b"\xff\xfe", "body"),
        (b"[]", "body"),
        (b'"text"', "body"),
        (b"{}", "id"),
        (b'{"id": 7}', "id"),
        (b'{"id": null}', "id"),
        (b'{"id": ""}', "id"),
        (b'{"id": "Upper"}', "id"),
        (b'{"id": "-x"}', "id"),
        (b'{"id": "x\\u0000"}', "id"),
        (b'{"id": "x\\n"}', "id"),
        (b'{"id": "' + b"x" * 64 + b'"}', "id"),
        (b'{"id": "\\ud800"}', "body"),
        (b'{"id": "x", "url": 5}', "url"),
        (b'{"id": "x", "url": "ftp://host"}', "url"),
        (b'{"id": "x", "url": "http://"}', "url"),
        (b'{"id": "x", "url": "http://user:hidden@host/"}', "url"),
        (b'{"id": "x", "url": "http://host:99999"}', "url"),
        (b'{"id": "x", "url": "http://[::1"}', "url"),
        (b'{"id": "x", "url": "http://ho st"}', "url"),
        (b'{"id": "x", "url": "http://host/\\n"}', "url"),
        (b'{"id": "x", "url": "http://host/' + b"a" * 2048 + b'"}', "url"),
        (b'{"id": "x", "agent_card": []}', "agent_card"),
        (b'{"id": "x", "agent_card": {"a": NaN}}', "agent_card"),
        (b'{"id": "x", "agent_card": {"a": [Infinity]}}', "agent_card"),
        (b'{"id": "x", "delivery_mode": "pigeon"}', "delivery_mode"),
    ],
)
async def test_the_error_for_an_invalid_body_names_the_member(
    platform: Platform, body: bytes, member: str
) -> None:
    answer = await post(platform, body, authorization="Bearer x")
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid"), answer.text
    assert answer.json()["error"].startswith(member), answer.text
    assert "hidden" not in answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"workspace_id": "x", "error_rate": NaN}',
        b'{"workspace_id": "x", "error_rate": -1}',
        b'{"workspace_id": "x", "error_rate": "high"}',
        b'{"workspace_id": "x", "active_tasks": 2147483648}',
        b'{"workspace_id": "x", "uptime_seconds": 1e300}',
        b'{"workspace_id": "x", "sample_error": {}}',
    ],
)
async def test_a_heartbeat_that_does_not_fit_is_a_400(platform: Platform, body: bytes) -> None:
    answer = await platform.client.post("/registry/heartbeat", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")


async def test_a_large_body_is_a_413_whether_it_says_so_or_not(platform: Platform) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 16_384

    for content in (b" " * 65_537, chunks()):
        answer = await post(platform, content)
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert answer.headers["connection"] == "close"


async def test_a_body_that_just_fits_is_read(platform: Platform) -> None:
    box = await platform.workspace()
    body = json.dumps({"id": box.workspace_id, "agent_card": {"name": ""}})
    filled = body.replace('""', '"' + "a" * (65_536 - len(body)) + '"').encode()
    assert len(filled) == 65_536
    answer = await post(platform, filled, authorization=f"Bearer {box.secret}")
    assert answer.status_code == 200


async def test_deep_nesting_is_a_400(platform: Platform) -> None:
    box = await platform.workspace()
    for depth, status in ((30, 200), (31, 400), (20_000, 400)):
        body = b'{"id": "%s", "agent_card": {"a": %s%s}}' % (
            box.workspace_id.encode(),
            b"[" * depth,
            b"]" * depth,
        )
        answer = await post(platform, body, authorization=f"Bearer {box.secret}")
        assert answer.status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_encoding": "gzip"},
    ],
)
async def test_what_is_not_plain_json_is_a_415(platform: Platform, headers: dict[str, str]) -> None:
    answer = await post(platform, b"{}", **headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "media_type_unsupported")


async def test_a_body_that_does_not_come_is_a_408(platform: Platform) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = await post(platform, never())
    assert (answer.status_code, answer.json()["code"]) == (408, "body_too_slow")


async def test_every_error_has_the_same_members(platform: Platform) -> None:
    answers = [
        await platform.client.get("/nowhere"),
        await platform.client.get("/registry/register"),
        await post(platform, b"{"),
        await platform.client.get(
            "/workspaces/ws-none", headers={"authorization": f"Bearer {OPERATOR_TOKEN}"}
        ),
        await post(platform, b'{"id": "ws-none"}'),
    ]
    codes = ["path_unknown", "method_not_allowed", "body_invalid", "workspace_unknown", "token_missing"]
    assert [answer.json()["code"] for answer in answers] == codes
    assert answers[1].headers["allow"] == "POST"
    for answer in answers:
        assert {
            "error", "code", "retryable", "action", "retry_after", "workspace_id", "request_id"
        } <= answer.json().keys()  # fmt: skip
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_problem_details_on_request(platform: Platform) -> None:
    answer = await post(platform, b'{"id": "ws-none"}', accept="application/problem+json")
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"]) == ("urn:onebox:error:token_missing", 401)
    assert body["title"] == body["error"] == "missing workspace auth token"
    assert body["code"] == "token_missing"


async def test_a_request_id_is_kept_if_it_is_harmless(platform: Platform) -> None:
    kept = await post(platform, b"{", x_request_id="4bf92f35-77b3")
    assert kept.headers["x-request-id"] == "4bf92f35-77b3"
    for bad in ("a b", "x" * 65, "<script>"):
        replaced = await post(platform, b"{", x_request_id=bad)
        assert replaced.headers["x-request-id"] != bad
    fine = await platform.client.get("/healthz", headers={"x-request-id": "mine"})
    assert fine.headers["x-request-id"] == "mine"


async def test_an_internal_failure_is_a_typed_500_without_details(platform: Platform) -> None:
    box = await platform.workspace()
    await platform.database.execute("ALTER TABLE tokens RENAME TO lost")
    try:
        answer = await box.register(secret=True)
    finally:
        await platform.database.execute("ALTER TABLE lost RENAME TO tokens")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]
    assert "tokens" not in answer.text


@given(
    st.recursive(
        st.none() | st.text(alphabet='[]{}"\\a', max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
        max_leaves=20,
    ),
    st.integers(1, 6),
)
def test_depth_is_what_a_parser_finds(value: object, limit: int) -> None:
    assert too_deep(json.dumps(value).encode(), limit) == (_depth(value) > limit)


def _depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


@pytest.mark.parametrize("pattern", [b'"\\', b'\\"', b'["', b'"[', b"\\"])
def test_looking_for_depth_takes_linear_time(pattern: bytes) -> None:
    body = b"[" * 40 + b'"' + pattern * (65_000 // len(pattern))
    started = time.thread_time()  # CPU time, so that other processes do not count
    too_deep(body, 32)
    assert time.thread_time() - started < 0.5


async def test_a_real_server_answers_a_chunked_flood_and_a_box(database: str) -> None:
    config = replace(CONFIG, limits=Limits(body_seconds=60))
    async with open_pool(database, checkout_timeout=PATIENCE) as pool:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(config, pool), log_config=None, access_log=False, lifespan="off")
        )
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        port = sock.getsockname()[1]

        async def flood() -> AsyncIterator[bytes]:
            for _ in range(64):
                yield b" " * 65_536

        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        ) as client:
            box = Box(client, "ws-none", 1)
            assert (await box.register(secret=True)).status_code == 404
            with suppress(httpx2.TransportError):  # the server may close the connection during the flood
                answer = await client.post("/registry/register", content=flood(), headers=JSON)
                assert answer.status_code == 413
            assert (await client.get("/healthz")).status_code == 200
        server.should_exit = True
        await serving
        sock.close()
