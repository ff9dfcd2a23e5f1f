"""Exports traces as configured by OpenTelemetry's standard variables; off without an endpoint.

Spans that cannot be exported are dropped.
"""

import os
import threading
from collections.abc import Callable, Mapping

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from activities.telemetry.tracing import FixedIdGenerator
from workers.settings.common import InvalidSettings

FLUSH_SECONDS = 3.0
"""How long the last export may take; the process must exit within its grace period."""

PROTOCOL = "http/protobuf"
"""The supported OTLP protocol; the others need packages that are not installed."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log: structlog.stdlib.BoundLogger = structlog.get_logger("tracing")


def start(service: str, environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Start exporting spans if the environment names an endpoint. Returns the stop function.

    Exporter, batch processor, sampler and limits read their own `OTEL_…` variables. Raises `InvalidSettings`.
    """
    if not is_enabled(environment):
        return _no_op
    named = "OTEL_SERVICE_NAME" in environment
    resource = Resource.create({} if named else {"service.name": service})
    provider = TracerProvider(resource=resource, id_generator=FixedIdGenerator(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter()))
    trace.set_tracer_provider(provider)
    log.info("tracing.started", service=environment.get("OTEL_SERVICE_NAME", service))
    return _shut_down_within_limit(provider.shutdown)


def exporter(*, timeout: float | None = None) -> OTLPSpanExporter:
    """The span exporter, configured by its own variables. Raises `InvalidSettings`."""
    try:
        return OTLPSpanExporter(timeout=timeout)
    except (ValueError, OSError) as error:
        raise InvalidSettings(f"OTEL_EXPORTER_OTLP_…: {error}") from None


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Whether the environment enables OTLP export and names an endpoint."""
    exporters = environment.get("OTEL_TRACES_EXPORTER", "otlp").replace(" ", "").split(",")
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and "otlp" in exporters and any(environment.get(name) for name in ENDPOINTS)


def _shut_down_within_limit(shutdown: Callable[[], None]) -> Callable[[], None]:
    """Bound the shutdown: a collector that accepts a connection and never answers would block it."""

    def end() -> None:
        last = threading.Thread(target=shutdown, name="last spans", daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)

    return end


def _no_op() -> None:
    return
