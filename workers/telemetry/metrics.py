"""Serves a process's metrics to Prometheus on a separate address, never on the public port.

A process that cannot serve metrics logs a warning and runs without them.
"""

from collections.abc import Callable
from http.server import HTTPServer

import structlog
from prometheus_client import disable_created_metrics, start_http_server
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from workers.settings.listen_address import split_host_port

log: structlog.stdlib.BoundLogger = structlog.get_logger("metrics")


def serve(bind: str | None) -> Callable[[], None]:
    """Serve `/metrics` at host:port in a thread; does nothing without an address.

    Returns the stop function.
    """
    if not bind:
        return _no_op
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    host, port = split_host_port(bind)
    try:
        server, _ = start_http_server(port, host)
    except OSError as error:
        log.warning("metrics.unavailable", bind=bind, error=str(error))
        return _no_op
    log.info("metrics.started", bind=bind)
    return _closing(server)


def sdk_runtime(bind: str | None) -> Runtime | None:
    """A Temporal SDK runtime that serves the SDK's metrics; None if there is no usable address."""
    if not bind:
        return None
    config = PrometheusConfig(
        bind_address=bind, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=config))
    except (RuntimeError, ValueError) as error:
        log.warning("metrics.unavailable", bind=bind, error=str(error))
        return None


def _closing(server: HTTPServer) -> Callable[[], None]:
    def close() -> None:
        server.shutdown()
        server.server_close()

    return close


def _no_op() -> None:
    return
