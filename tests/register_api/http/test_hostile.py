"""Hostile heads, paths and bodies over a socket: never a 5xx, and the next caller is served."""

import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import httpx2
import pytest

from register_api.http import connection_limits
from tests.register_api.serving import PATIENT, ApiProcess, api_process

BODY = b'{"id": "ws-none"}'

PATIENCE_SECONDS = 60.0
"""Timeout for operations of milliseconds, on a machine that may pause."""

SLOW = replace(PATIENT, head_seconds=PATIENCE_SECONDS, body_seconds=PATIENCE_SECONDS)
"""Long server timeouts: a request that must be refused for its content must not time out."""


@pytest.fixture(scope="module")
def api(database: str) -> Iterator[ApiProcess]:
    with api_process(database, waits=SLOW) as process:
        yield process


def head(*lines: bytes, path: bytes = b"/registry/register", method: bytes = b"POST") -> bytes:
    return b"\r\n".join([method + b" " + path + b" HTTP/1.1", b"Host: x", *lines, b"", b""])


def exchange(api: ApiProcess, sent: bytes, *, seconds: float = PATIENCE_SECONDS) -> bytes:
    """The first response; empty if the server closes the connection without one."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=seconds) as conn:
        received = b""
        with suppress(ConnectionError):  # already refused and answered
            conn.sendall(sent)
        with suppress(ConnectionError):  # closed with unread bytes
            while not is_whole(received) and (piece := conn.recv(65_536)):
                received += piece
        return received


def is_whole(answer: bytes) -> bool:
    headers, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", headers)
    return bool(end) and length is not None and len(body) >= int(length[1])


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def assert_served(api: ApiProcess) -> None:
    answer = httpx2.get(f"{api.url}/healthz", trust_env=False, timeout=PATIENCE_SECONDS)
    assert answer.status_code == 200


JSON = b"Content-Type: application/json"
LENGTH = b"Content-Length: %d" % len(BODY)

HEADS = {
    "no bearer scheme": (head(JSON, LENGTH, b"Authorization: x") + BODY, {401}),
    "an endless bearer": (head(JSON, LENGTH, b"Authorization: Bearer " + b"x" * 30_000) + BODY, {401}),
    "bytes in a bearer": (head(JSON, LENGTH, b"Authorization: Bearer \xff\xfe\x80") + BODY, {400, 401}),
    "a NUL in a header": (head(JSON, LENGTH, b"X-Bootstrap-Token: a\x00b") + BODY, {400}),
    "a secret with a huge generation": (
        head(JSON, LENGTH, b"X-Bootstrap-Token: ob1.k1.9999999999." + b"x" * 43) + BODY,
        {401},
    ),
    "a secret of an unknown key": (
        head(JSON, LENGTH, b"X-Bootstrap-Token: ob1.k9.1." + b"x" * 43) + BODY,
        {401},
    ),
    "ten thousand secrets": (head(JSON, LENGTH, *[b"X-Bootstrap-Token: x"] * 1_000) + BODY, {401}),
    "a forged way here": (head(JSON, LENGTH, b"X-Forwarded-For: " + b"10.0.0.1," * 3_000) + BODY, {401}),
    "a request ID with a line break": (head(JSON, LENGTH, b"X-Request-ID: a\r\n\tb") + BODY, {400, 401}),
    "two lengths": (head(JSON, LENGTH, b"Content-Length: 5") + BODY, {400}),
    "length and chunks": (head(JSON, LENGTH, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", {400}),
    "a negative length": (head(JSON, b"Content-Length: -1") + BODY, {400}),
    "a length beyond numbers": (head(JSON, b"Content-Length: " + b"9" * 40) + BODY, {400, 413}),
    "a length that says too much": (head(JSON, b"Content-Length: 999999999") + BODY, {413}),
    "a chunk that is none": (head(JSON, b"Transfer-Encoding: chunked") + b"zz\r\n", {400}),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400}),
    "an upgrade": (head(b"Upgrade: websocket", b"Connection: Upgrade", method=b"GET", path=b"/x"), {404}),
    "a line without an end": (b"GET /" + b"a" * 400_000, {400}),
    "headers without an end": (head()[:-2] + b"X-A: b\r\n" * 60_000, {400}),
    "an accept of everything": (
        head(JSON, LENGTH, b"Accept: " + b"application/problem+json;q=0.1," * 500) + BODY,
        {401},
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_hostile_head_is_refused_and_the_next_caller_served(api: ApiProcess, name: str) -> None:
    sent, statuses = HEADS[name]
    answer = exchange(api, sent)
    assert status(answer) in statuses, answer[:300]
    assert_served(api)


def test_a_body_that_ends_too_soon_is_refused_and_the_next_caller_served(database: str) -> None:
    with api_process(database, waits=replace(SLOW, body_seconds=0.5)) as api:
        answer = exchange(api, head(JSON, b"Content-Length: 50") + BODY)
        assert status(answer) == 408, answer[:300]
        assert_served(api)


@pytest.mark.parametrize(
    "path",
    [
        b"/workspaces/%00",
        b"/workspaces/%00/state",
        b"/workspaces/..%2f..%2fetc%2fpasswd",
        b"/workspaces/../../etc/passwd",
        b"//workspaces//ws-1",
        b"/workspaces/ws-1%0d%0aX-Evil:%201",
        b"/workspaces/%ff%fe",
        b"/workspaces/%",
        b"/workspaces/%zz",
        b"/workspaces/" + b"a" * 20_000,
        b"/workspaces/ws-1/tokens/%00",
        b"/workspaces/ws-1/audit?limit=%00&before=1%27--",
        b"/workspaces/ws-1/audit?" + b"limit=1&" * 2_000,
        b"/registry/discover/%F0%9F%92%A5",
        b"/workspaces/'; DROP TABLE workspaces; --".replace(b" ", b"%20"),
        b"http://169.254.169.254/latest/meta-data",
        b"*",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"DELETE"])
def test_a_hostile_path_is_an_ordinary_refusal(api: ApiProcess, path: bytes, method: bytes) -> None:
    answer = exchange(api, head(path=path, method=method))
    assert status(answer) in {400, 401, 404, 405}, answer[:300]
    assert b"X-Evil" not in answer.split(b"\r\n\r\n")[0]
    assert_served(api)


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "ws-none"} trailing',
        b'{"id": "ws-none", "id": "ws-other"}',
        b'{"id": "ws-none", "id": 5}',
        b'{"id": "ws-none", "agent_card": ' + b'{"a":' * 31 + b"1" + b"}" * 32,
        b'{"id": "ws-none", "agent_card": {"' + b"k" * 60_000 + b'": 1}}',
        b'{"id": "ws-none", "agent_card": {"n": ' + b"9" * 60_000 + b"}}",
        b'{"id": "ws-none", "agent_card": {"n": 1e999999}}',
        b'{"id": "ws-none", "agent_card": {"n": -1e-999999}}',
        b'{"id": "ws-none", "agent_card": {"__proto__": {"a": 1}, "constructor": 1}}',
        b'{"id": "ws-none", "agent_card": {"t": "' + "\u202e\ufeff\u0000".encode() + b'"}}',
        b'{"id": "ws-none", "url": "http://[fe80::1%25eth0]:80/"}',
        b'{"id": "ws-none", "url": "http://x:8000\\\\@169.254.169.254/"}',
        b'{"id": "ws-none", "url": "http://x#@y"}',
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        b"\x00" * 1_000,
        b"[" * 60_000,
        b'"' + b"\\u0000" * 10_000 + b'"',
        b"nul",
        b"-",
    ],
)
def test_a_hostile_body_is_an_ordinary_refusal(api: ApiProcess, body: bytes) -> None:
    answer = exchange(api, head(JSON, b"Content-Length: %d" % len(body)) + body)
    assert status(answer) in {400, 401}, answer[:300]
    assert b"request_id" in answer
    assert_served(api)


def test_a_connection_that_says_nothing_is_closed_in_time(database: str) -> None:
    with api_process(database, waits=replace(SLOW, head_seconds=0.3)) as api:
        for first in (b"", b"POST /registry/register HTTP/1.1\r\nHost: x\r\nX-Slow: "):
            # The machine may pause during one of them, but hardly during each.
            assert min(until_closed(api, first) for _ in range(3)) < connection_limits.HEAD_TIMEOUT_SECONDS


def until_closed(api: ApiProcess, first: bytes) -> float:
    """Seconds until the server closes a connection on which only `first` is sent."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_SECONDS) as conn:
        with suppress(ConnectionError):  # closed before everything was sent or read
            conn.sendall(first)
            assert conn.recv(1) == b""
        return time.monotonic() - started


def test_a_caller_that_sends_a_refused_body_can_read_the_response(database: str) -> None:
    with api_process(database, waits=replace(SLOW, discarded_seconds=PATIENCE_SECONDS)) as api:
        received = refused_while_it_sends(api)
    assert status(received) == 415
    assert is_whole(received)


def refused_while_it_sends(api: ApiProcess) -> bytes:
    with socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE_SECONDS) as conn:
        conn.sendall(head(b"Content-Type: text/plain", b"Content-Length: 40000"))
        select.select([conn], [], [], 0.2)  # a server that responds without draining has closed by now
        for _ in range(4):
            conn.sendall(b"x" * 10_000)
        received = b""
        while piece := conn.recv(65_536):
            received += piece
    return received
