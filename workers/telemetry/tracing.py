"""Turning traces on, by OpenTelemetry's standard variables. What is traced is not decided here.

Off unless an endpoint is given. What cannot be exported is dropped: nothing ever waits for it.
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
"""What is left at the end gets so long; a process has to end within its grace period."""

PROTOCOL = "http/protobuf"
"""OTLP's protocol that is spoken here; the others need packages that aren't."""

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log: structlog.stdlib.BoundLogger = structlog.get_logger("tracing")


def start(service: str, environment: Mapping[str, str] = os.environ) -> Callable[[], None]:
    """Export spans from now on, if the environment says where to; returns what ends it.

    The exporter, the batches, the sampler and the limits read their own `OTEL_…` variables. Raises
    `InvalidSettings`.
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
    """What sends spans, by its own variables. Raises `InvalidSettings`."""
    try:
        return OTLPSpanExporter(timeout=timeout)
    except (ValueError, OSError) as error:
        raise InvalidSettings(f"OTEL_EXPORTER_OTLP_…: {error}") from None


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Whether traces are to be exported: to an endpoint, by OTLP, and not switched off."""
    exporters = environment.get("OTEL_TRACES_EXPORTER", "otlp").replace(" ", "").split(",")
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and "otlp" in exporters and any(environment.get(name) for name in ENDPOINTS)


def _shut_down_within_limit(shutdown: Callable[[], None]) -> Callable[[], None]:
    """A collector that takes the connection and says nothing would hold the process up for long."""

    def end() -> None:
        last = threading.Thread(target=shutdown, name="last spans", daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)

    return end


def _no_op() -> None:
    return
