"""Whole stacks for tests, whose instances come and go faster than EC2's."""

from collections.abc import Mapping
from pathlib import Path

from devstack.stack import Stack
from tests.integration.collector import Collector
from tests.integration.wire import Wire

CANARY_SECRET_KEY = "c0ffee00" * 8
"""The server's key of these tests: searched for, with all that is derived from it, where it must not be."""


def hurried(settings: Mapping[str, str], directory: Path | None = None) -> Stack:
    """A stack of all parts, on ports of its own; not started."""
    return Stack(
        directory,
        free_ports=True,
        fsync=False,
        settings=settings,
        pending_seconds=0.2,
        terminating_seconds=0.2,
    )


def watched(wire: Wire, collector: Collector) -> dict[str, str]:
    """Settings of a stack whose boxes call through the wire, and whose processes send their spans."""
    return {
        "REGISTER_API_URL": wire.url,
        "SERVER_KEYS": f"k1:{CANARY_SECRET_KEY}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
