"""A stack that is looked at from outside: its calls, its spans, and where its key shows."""

from tests.integration.collector import Collector
from tests.integration.wire import Wire

CANARY_SECRET_KEY = "c0ffee00" * 8
"""The server's key of these tests: searched for, with all that is derived from it, where it must not be."""


def watched(wire: Wire, collector: Collector) -> dict[str, str]:
    """Settings of a stack whose boxes call through the wire, and whose processes send their spans."""
    return {
        "REGISTER_API_URL": wire.url,
        "SERVER_KEYS": f"k1:{CANARY_SECRET_KEY}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
