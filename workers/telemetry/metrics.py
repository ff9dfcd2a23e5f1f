"""Serves a process's metrics to Prometheus on a separate address, never on the public port."""

from collections.abc import Callable
from http.server import HTTPServer

import structlog
from prometheus_client import disable_created_metrics, start_http_server
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

from workers.serving.listening import CannotListen
from workers.settings.listen_address import split_host_port

log: structlog.stdlib.BoundLogger = structlog.get_logger("metrics")


def serve(setting: str, bind: str | None) -> Callable[[], None]:
    """Serve `/metrics` at the setting's host:port in a thread; does nothing without an address.

    Returns the stop function. Raises `CannotListen`.
    """
    if not bind:
        return _no_op
    disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations
    host, port = split_host_port(bind)
    try:
        server, _ = start_http_server(port, host)
    except OSError as error:
        raise CannotListen(setting, bind, error) from None
    log.info("metrics.started", bind=bind)
    return _closing(server)


def sdk_runtime(setting: str, bind: str | None) -> Runtime | None:
    """A Temporal SDK runtime that serves the SDK's metrics; None without an address.

    Raises `CannotListen`.
    """
    if not bind:
        return None
    config = PrometheusConfig(
        bind_address=bind, counters_total_suffix=True, unit_suffix=True, durations_as_seconds=True
    )
    try:
        return Runtime(telemetry=TelemetryConfig(metrics=config))
    except (RuntimeError, ValueError) as error:
        raise CannotListen(setting, bind, error) from None


def _closing(server: HTTPServer) -> Callable[[], None]:
    def close() -> None:
        server.shutdown()
        server.server_close()

    return close


def _no_op() -> None:
    return
