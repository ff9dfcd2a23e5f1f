"""Settings of an observed stack: its calls, its spans, and its server key."""

from tests.integration.collector import Collector
from tests.integration.wire import Wire

CANARY_SECRET_KEY = "c0ffee00" * 8
"""The server key of these tests. Tests search for it and for derived values where they must not be."""


def watched(wire: Wire, collector: Collector) -> dict[str, str]:
    """Settings of a stack whose boxes call through the wire and whose processes send spans."""
    return {
        "REGISTER_API_URL": wire.url,
        "SERVER_KEYS": f"k1:{CANARY_SECRET_KEY}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
