"""Checks the trace collector by sending it an empty batch.

A problem is a warning at most: without the collector, only spans are lost.
"""

import asyncio
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from opentelemetry.sdk.trace.export import SpanExportResult

from cli.doctor.model import Finding, ok, skipped, warning
from workers.settings.common import InvalidSettings
from workers.telemetry import tracing

CHECK = "telemetry.traces"

PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

SECONDS = 5.0


async def findings(environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """Whether the collector accepts spans."""
    if not tracing.is_enabled(environment):
        return [
            skipped(CHECK, "traces are off: OTEL_EXPORTER_OTLP_ENDPOINT is not set, or export is disabled")
        ]
    variable = next(name for name in tracing.ENDPOINTS if environment.get(name))
    protocol = next((value for name in PROTOCOLS if (value := environment.get(name))), tracing.PROTOCOL)
    if protocol != tracing.PROTOCOL:
        return [
            warning(
                CHECK,
                f"{protocol} is configured, but only {tracing.PROTOCOL} is supported",
                f"Unset it, and use the collector's port for {tracing.PROTOCOL}, usually 4318.",
                *(name for name in PROTOCOLS if environment.get(name)),
            )
        ]
    where = _where(environment[variable])
    try:
        accepted = await asyncio.to_thread(_export_nothing)
    except InvalidSettings as error:
        return [warning(CHECK, str(error), "Correct it, or unset it.", variable)]
    if accepted:
        return [ok(CHECK, f"the collector at {where} accepts spans")]
    return [
        warning(
            CHECK,
            f"the collector at {where} does not accept spans; they are lost",
            f"Start it, or correct {variable} (OTLP over HTTP, usually port 4318; 4317 is gRPC's) and "
            "OTEL_EXPORTER_OTLP_HEADERS.",
            variable,
        )
    ]


def _export_nothing() -> bool:
    exporter = tracing.exporter(timeout=SECONDS)
    try:
        return exporter.export([]) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations


def _where(url: str) -> str:
    """Host and port of the URL, without a password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or "nowhere"
