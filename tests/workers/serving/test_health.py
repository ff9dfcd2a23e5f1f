"""What a worker answers to probes, and to those who are none."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from devstack.processes import LOCALHOST, free_port
from workers.serving import health as module
from workers.serving.health import Health, serve_probes
from workers.settings.common import InvalidSettings

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the machine up is no caller that says nothing, and no check without an answer."""
    monkeypatch.setattr(module, "HEAD_TIMEOUT", timedelta(minutes=2))
    monkeypatch.setattr(module, "CHECK_TIMEOUT", timedelta(minutes=2))


@pytest.fixture
def health() -> Health:
    """Of a process that has started, and depends on nothing yet."""
    health = Health()
    health.started()
    return health


@pytest.fixture
async def port(health: Health) -> AsyncIterator[int]:
    port = free_port()
    async with serve_probes(health, (LOCALHOST, port)):
        yield port


async def well() -> str | None:
    return None


async def ill() -> str | None:
    return "unavailable"


async def silent() -> str | None:
    never: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    return await never


async def said(port: int, sent: bytes) -> bytes:
    """All that is answered to these bytes until the connection ends."""
    reader, writer = await asyncio.open_connection(LOCALHOST, port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


async def asked(port: int, line: str) -> tuple[int, object]:
    head, _, body = (await said(port, f"{line} HTTP/1.1\r\nHost: x\r\n\r\n".encode())).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    return int(head.split(b" ")[1]), json.loads(body)


async def test_a_process_that_starts_is_not_ready_and_says_so() -> None:
    health = Health()
    assert await health.obstacles() == {"process": "starting"}
    health.started()
    assert await health.obstacles() == {}


async def test_whatever_it_depends_on_is_named_while_it_is_in_the_way(health: Health) -> None:
    health.depends_on("database", ill)
    health.depends_on("temporal", well)
    assert await health.obstacles() == {"database": "unavailable"}
    health.depends_on("database", well)
    assert await health.obstacles() == {}


async def test_a_process_that_stops_is_never_ready_again_and_asks_nobody(health: Health) -> None:
    async def asks() -> str | None:
        raise AssertionError("it was asked")

    health.depends_on("database", asks)
    health.stopping()
    assert await health.obstacles() == {"process": "stopping"}


async def test_what_does_not_answer_is_in_the_way_and_hides_nothing_else(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT", timedelta(milliseconds=10))
    health.depends_on("temporal", silent)
    health.depends_on("database", ill)
    assert await health.obstacles() == {"temporal": "no answer in 0.01 s", "database": "unavailable"}


async def test_readiness_reflects_what_it_depends_on_and_liveness_does_not(health: Health, port: int) -> None:
    assert await asked(port, "GET /readyz") == (200, {"status": "ready"})
    health.depends_on("database", ill)
    obstacles = {"status": "not ready", "obstacles": {"database": "unavailable"}}
    assert await asked(port, "GET /readyz") == (503, obstacles)
    assert await asked(port, "GET /readyz?verbose") == (503, obstacles)
    assert await asked(port, "GET /healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize("line", ["GET /", "GET /healthz/more", "POST /healthz", "nonsense"])
async def test_there_is_nothing_else(port: int, line: str) -> None:
    status, _ = await asked(port, line)
    assert status == 404


@pytest.mark.parametrize("sent", [b"x" * 100_000, b"GET /healthz HTTP/1.1\r\n"])
async def test_what_is_no_request_gets_no_answer_and_does_no_harm(
    port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hasty:
        hasty.setattr(module, "HEAD_TIMEOUT", timedelta(milliseconds=10))
        with suppress(ConnectionError):  # it may be ended with some of it unread
            assert await said(port, sent) == b""
    assert await asked(port, "GET /healthz") == (200, {"status": "ok"})


async def test_a_caller_that_leaves_at_once_does_no_harm(port: int) -> None:
    _, writer = await asyncio.open_connection(LOCALHOST, port)
    writer.transport.abort()
    assert await asked(port, "GET /healthz") == (200, {"status": "ok"})


async def test_an_address_that_is_taken_is_named_by_its_variable(health: Health, port: int) -> None:
    with pytest.raises(InvalidSettings, match="WORKER_HEALTH_BIND"):
        async with serve_probes(health, (LOCALHOST, port)):
            raise AssertionError("it is served twice")


async def test_without_an_address_nothing_listens_and_at_the_end_nothing_does(health: Health) -> None:
    async with serve_probes(health, None):
        pass
    port = free_port()
    async with serve_probes(health, (LOCALHOST, port)):
        await asked(port, "GET /healthz")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(LOCALHOST, port)
