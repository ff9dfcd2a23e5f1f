"""The worker's probes: liveness, readiness, and requests that are neither."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import pytest

from devstack.processes import LOCALHOST, free_port
from register_api.http import connection_limits
from workers.serving import health as module
from workers.serving.health import Health, serve_probes
from workers.serving.listening import CannotListen

SETTING = "WORKER_HEALTH_BIND"

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _long_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine must not look like a slow caller or a check without an answer."""
    monkeypatch.setattr(connection_limits, "HEAD_TIMEOUT_SECONDS", 120.0)
    monkeypatch.setattr(module, "CHECK_TIMEOUT", timedelta(minutes=2))


@pytest.fixture
def health() -> Health:
    """A started process without dependencies."""
    health = Health()
    health.started()
    return health


@pytest.fixture
async def port(health: Health) -> AsyncIterator[int]:
    port = free_port()
    async with serve_probes(health, SETTING, f"{LOCALHOST}:{port}"):
        yield port


async def healthy() -> str | None:
    return None


async def unavailable() -> str | None:
    return "unavailable"


async def unanswered() -> str | None:
    never: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    return await never


async def exchange(port: int, sent: bytes) -> bytes:
    """All bytes that the server sends until it closes the connection."""
    reader, writer = await asyncio.open_connection(LOCALHOST, port)
    try:
        writer.write(sent)
        return await reader.read()
    finally:
        writer.close()


async def get(port: int, path: str, *, method: str = "GET") -> tuple[int, str]:
    request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    head, _, body = (await exchange(port, request.encode())).decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


async def probe(port: int, path: str) -> tuple[int, object]:
    status, body = await get(port, path)
    return status, json.loads(body)


async def test_a_starting_process_is_not_ready() -> None:
    health = Health()
    assert await health.obstacles() == {"process": "starting"}
    health.started()
    assert await health.obstacles() == {}


async def test_a_failing_dependency_is_named(health: Health) -> None:
    health.depends_on("database", unavailable)
    health.depends_on("temporal", healthy)
    assert await health.obstacles() == {"database": "unavailable"}
    health.depends_on("database", healthy)
    assert await health.obstacles() == {}


async def test_a_stopping_process_is_not_ready_and_runs_no_check(health: Health) -> None:
    async def check() -> str | None:
        raise AssertionError("the check ran")

    health.depends_on("database", check)
    health.stopping()
    assert await health.obstacles() == {"process": "stopping"}


async def test_a_check_that_times_out_is_named_and_hides_no_other(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_TIMEOUT", timedelta(milliseconds=10))
    health.depends_on("temporal", unanswered)
    health.depends_on("database", unavailable)
    assert await health.obstacles() == {"temporal": "no answer in 0.01 s", "database": "unavailable"}


async def test_readiness_depends_on_checks_and_liveness_does_not(health: Health, port: int) -> None:
    assert await probe(port, "/readyz") == (200, {"status": "ready"})
    health.depends_on("database", unavailable)
    obstacles = {"status": "not ready", "obstacles": {"database": "unavailable"}}
    assert await probe(port, "/readyz") == (503, obstacles)
    assert await probe(port, "/readyz?verbose") == (503, obstacles)
    assert await probe(port, "/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/healthz/more", 404), ("POST", "/healthz", 405)],
)
async def test_other_paths_and_methods_are_refused(port: int, method: str, path: str, status: int) -> None:
    assert (await get(port, path, method=method))[0] == status


@pytest.mark.parametrize("sent", [b"x" * 100_000, b"nonsense\r\n\r\n"])
async def test_a_malformed_request_gets_a_400_and_does_no_harm(port: int, sent: bytes) -> None:
    with suppress(ConnectionError):  # the server may close with some bytes unread
        assert (await exchange(port, sent)).startswith(b"HTTP/1.1 400")
    assert await probe(port, "/healthz") == (200, {"status": "ok"})


async def test_an_incomplete_request_is_dropped(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as short:
        short.setattr(connection_limits, "HEAD_TIMEOUT_SECONDS", 0.01)
        assert await exchange(port, b"GET /healthz HTTP/1.1\r\n") == b""
    assert await probe(port, "/healthz") == (200, {"status": "ok"})


async def test_a_caller_that_leaves_at_once_does_no_harm(port: int) -> None:
    _, writer = await asyncio.open_connection(LOCALHOST, port)
    writer.transport.abort()
    assert await probe(port, "/healthz") == (200, {"status": "ok"})


async def test_an_address_in_use_is_reported_with_its_variable(health: Health, port: int) -> None:
    with pytest.raises(CannotListen, match=SETTING):
        async with serve_probes(health, SETTING, f"{LOCALHOST}:{port}"):
            raise AssertionError("it is served twice")


async def test_nothing_listens_without_an_address_or_after_the_block(health: Health) -> None:
    async with serve_probes(health, SETTING, None):
        pass
    port = free_port()
    async with serve_probes(health, SETTING, f"{LOCALHOST}:{port}"):
        await probe(port, "/healthz")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(LOCALHOST, port)
