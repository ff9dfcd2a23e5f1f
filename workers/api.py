"""`onebox api`: serves the register API until SIGTERM.

Builds the application of `register_api` from settings and a database pool.
"""

import asyncio
import gc
import socket

import structlog
import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from register_api.app import create_app
from register_api.http.config import ApiConfig
from register_api.http.connection_limits import LimitedHttpProtocol
from register_api.registration.heartbeat_liveness import record_intake
from store.db.pool import open_pool
from workers.serving.graceful_shutdown import Drain, DrainingMiddleware, DrainingServer
from workers.serving.listening import listen
from workers.settings.api import ApiSettings
from workers.settings.common import load
from workers.telemetry import logs, metrics, tracing

GRACE_SECONDS = 10
"""How long running requests may take after the last connection was accepted. A request takes milliseconds;
one that waits for a row lock, up to two seconds."""

GC_THRESHOLD = 10_000
"""Allocations between garbage collections. A few hundred concurrent requests exceed Python's default of 700
all the time, and none of their objects is in a cycle."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("api")


def run() -> int:
    """Serve until SIGTERM or SIGINT, finish running requests, and return the exit code.

    Raises `CannotListen`.
    """
    settings = load(ApiSettings)
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    listeners = listen("REGISTER_API_BIND", settings.register_api_bind)
    close_metrics = metrics.serve("API_METRICS_BIND", settings.api_metrics_bind)
    end_tracing = tracing.start("onebox-api")
    try:
        # uvicorn chooses uvloop only for a loop that it creates itself.
        with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
            return runner.run(_serve(settings, listeners))
    finally:
        close_metrics()
        end_tracing()


async def _serve(settings: ApiSettings, listeners: list[socket.socket]) -> int:
    config = ApiConfig(
        keys=settings.keys,
        operator_token_hashes=frozenset(bytes.fromhex(each) for each in settings.operator_token_hashes),
        bootstrap_policy=settings.bootstrap_policy,
        trusted_proxies=settings.proxies,
        allow_loopback_targets=settings.allow_loopback_targets,
        heartbeat_stale=settings.heartbeat_stale,
    )
    async with open_pool(
        settings.database_url.get_secret_value(),
        minimum=2,
        maximum=settings.database_pool_size,
        application_name="onebox-api",
    ) as pool:
        intake = asyncio.create_task(record_intake(pool, stale=settings.heartbeat_stale))
        drain = Drain()
        server = DrainingServer(
            uvicorn.Config(
                DrainingMiddleware(create_app(config, pool, draining=lambda: drain.begun), drain),
                http=LimitedHttpProtocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=GRACE_SECONDS,
            ),
            drain=drain,
            delay=settings.shutdown_delay,
        )
        log.info("api.started", bind=settings.register_api_bind)
        # Imported modules live as long as the process: exclude them from every later collection.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD)
        try:
            await server.serve(listeners)
        finally:
            intake.cancel()
        log.info("api.stopped")
        return 0 if server.started else 1
