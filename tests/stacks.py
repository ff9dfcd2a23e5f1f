"""Whole stacks for tests, whose instances come and go faster than EC2's."""

from collections.abc import Mapping
from pathlib import Path

from devstack.stack import Stack


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
