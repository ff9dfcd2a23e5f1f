"""Looking whether the collector of traces takes an empty batch, sent as the processes send theirs.

A collector that is away costs spans and nothing else, so it is never a failure.
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
    """Whether traces get where they should."""
    if not tracing.is_enabled(environment):
        return [
            skipped(CHECK, "traces are off: there is no OTEL_EXPORTER_OTLP_ENDPOINT, or they are disabled")
        ]
    variable = next(name for name in tracing.ENDPOINTS if environment.get(name))
    protocol = next((value for name in PROTOCOLS if (value := environment.get(name))), tracing.PROTOCOL)
    if protocol != tracing.PROTOCOL:
        return [
            warning(
                CHECK,
                f"{protocol} is asked for, and not spoken here: {tracing.PROTOCOL} is what spans are sent by",
                f"Unset it, and give the collector's port for {tracing.PROTOCOL}: usually 4318.",
                *(name for name in PROTOCOLS if environment.get(name)),
            )
        ]
    where = _where(environment[variable])
    try:
        taken = await asyncio.to_thread(_try)
    except InvalidSettings as error:
        return [warning(CHECK, str(error), "Correct it, or unset it.", variable)]
    if taken:
        return [ok(CHECK, f"the collector at {where} takes spans")]
    return [
        warning(
            CHECK,
            f"the collector at {where} does not take spans: they are lost, and nothing else is",
            f"Start it, or correct {variable} (OTLP over HTTP, usually port 4318; 4317 is gRPC's) and "
            "OTEL_EXPORTER_OTLP_HEADERS.",
            variable,
        )
    ]


def _try() -> bool:
    exporter = tracing.exporter(timeout=SECONDS)
    try:
        return exporter.export([]) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no annotations


def _where(url: str) -> str:
    """Host and port only: there may be a password in it."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or "nowhere"
