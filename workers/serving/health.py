"""Probe endpoints of a process without an API: `/healthz` (liveness) and `/readyz` (readiness).

The process registers a check for each dependency; `/readyz` runs all of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import override

from register_api.http.connection_limits import LimitedHttpProtocol
from workers.serving.listening import listen

Check = Callable[[], Awaitable[str | None]]
"""Returns what keeps the process from working, or None. Raises nothing."""

CHECK_TIMEOUT = timedelta(seconds=5)
"""Longer than a checkout from the pool may take, and shorter than a probe's timeout should be."""

START_POLL_SECONDS = 0.01

GRACE_SECONDS = 1

log: structlog.stdlib.BoundLogger = structlog.get_logger("health")


class Health:
    """The readiness of this process: its own state, and one check for each dependency."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._starting = True
        self._stopping = False

    def depends_on(self, name: str, check: Check) -> None:
        """Add a check; the process is ready only while the check returns None."""
        self._checks[name] = check

    def started(self) -> None:
        """Mark the process as started: all its checks are registered."""
        self._starting = False

    def stopping(self) -> None:
        """Mark the process as stopping; it never becomes ready again."""
        self._stopping = True

    async def obstacles(self) -> dict[str, str]:
        """What keeps the process from working, by dependency; empty if it is ready."""
        if self._stopping:
            return {"process": "stopping"}
        found = {"process": "starting"} if self._starting else {}
        names = tuple(self._checks)
        results = await asyncio.gather(*(_run_check(self._checks[name]) for name in names))
        return found | {name: result for name, result in zip(names, results, strict=True) if result}


async def _run_check(check: Check) -> str | None:
    try:
        return await asyncio.wait_for(check(), CHECK_TIMEOUT.total_seconds())
    except TimeoutError:
        return f"no answer in {CHECK_TIMEOUT.total_seconds():g} s"


def probe_app(health: Health) -> Starlette:
    """The two endpoints as an ASGI application."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_: Request) -> Response:
        if obstacles := await health.obstacles():
            return JSONResponse({"status": "not ready", "obstacles": obstacles}, 503)
        return JSONResponse({"status": "ready"})

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz)])


@asynccontextmanager
async def serve_probes(health: Health, setting: str, bind: str | None) -> AsyncIterator[None]:
    """Serve the probes at the setting's host:port during the block; serve nothing without an address.

    Raises `CannotListen`.
    """
    if not bind:
        yield
        return
    listeners = listen(setting, bind)
    config = uvicorn.Config(
        probe_app(health),
        http=LimitedHttpProtocol,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _ProbeServer(config)
    serving = asyncio.create_task(server.serve(sockets=listeners))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets a flag only
        await asyncio.sleep(START_POLL_SECONDS)
    log.info("health.started", bind=bind)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


class _ProbeServer(uvicorn.Server):
    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process that runs this server."""
        yield
