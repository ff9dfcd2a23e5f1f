"""Whether a process without an API is fit to work: `/healthz` asks nobody, `/readyz` asks what it depends on.

Knows neither PostgreSQL nor Temporal; whoever runs it says what to ask.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus

import structlog

from workers.settings.common import InvalidSettings

Check = Callable[[], Awaitable[str | None]]
"""What is in the way, as a person would say it; None if nothing is. Raises nothing."""

CHECK_TIMEOUT = timedelta(seconds=5)
"""Longer than a checkout from the pool may take; shorter than a probe's patience should be."""

HEAD_TIMEOUT = timedelta(seconds=5)

log: structlog.stdlib.BoundLogger = structlog.get_logger("health")


class Health:
    """What is asked now; a process adds a check as soon as it depends on something."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._starting = True
        self._stopping = False

    def depends_on(self, name: str, check: Check) -> None:
        """Ready only while this check finds nothing."""
        self._checks[name] = check

    def started(self) -> None:
        """Everything that it depends on is known, and it works."""
        self._starting = False

    def stopping(self) -> None:
        """Never ready again."""
        self._stopping = True

    async def obstacles(self) -> dict[str, str]:
        """What is in the way of work, by name; empty if it is ready."""
        if self._stopping:
            return {"process": "stopping"}
        found = {"process": "starting"} if self._starting else {}
        names = tuple(self._checks)
        answers = await asyncio.gather(*(_run_check(self._checks[name]) for name in names))
        return found | {name: answer for name, answer in zip(names, answers, strict=True) if answer}


async def _run_check(check: Check) -> str | None:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT.total_seconds())
    except TimeoutError:
        return f"no answer in {CHECK_TIMEOUT.total_seconds():g} s"


@asynccontextmanager
async def serve_probes(health: Health, bind: tuple[str, int] | None) -> AsyncIterator[None]:
    """Answer probes for the block; without an address, nothing listens."""
    if bind is None:
        yield
        return
    try:
        server = await asyncio.start_server(lambda r, w: _answer(health, r, w), *bind)
    except OSError as error:
        raise InvalidSettings(f"WORKER_HEALTH_BIND: cannot listen there ({error.strerror})") from None
    log.info("health.started", bind=f"{bind[0]}:{bind[1]}")
    try:
        yield
    finally:
        server.close()


async def _answer(health: Health, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request for each connection: probes are seldom."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HEAD_TIMEOUT.total_seconds())
        status, body = await _reply(health, head)
        content = json.dumps(body).encode()
        writer.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
        )
        writer.write(content)
        await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
        return  # not a probe, or one that has left
    finally:
        writer.close()


async def _reply(health: Health, head: bytes) -> tuple[HTTPStatus, dict[str, object]]:
    words = head.split(b"\r\n", 1)[0].split(b" ")
    path = words[1].split(b"?")[0] if len(words) == 3 and words[0] == b"GET" else b""
    match path:
        case b"/healthz":
            return HTTPStatus.OK, {"status": "ok"}
        case b"/readyz":
            obstacles = await health.obstacles()
            if obstacles:
                return HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not ready", "obstacles": obstacles}
            return HTTPStatus.OK, {"status": "ready"}
        case _:
            return HTTPStatus.NOT_FOUND, {"error": "there are GET /healthz and GET /readyz"}
