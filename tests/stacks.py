"""Whole stacks for tests, with fast instance state changes."""

from collections.abc import Mapping
from pathlib import Path

from devstack.stack import Stack


def hurried(settings: Mapping[str, str], directory: Path | None = None) -> Stack:
    """Return a stack of all parts on free ports, not started."""
    return Stack(
        directory,
        free_ports=True,
        fsync=False,
        settings=settings,
        pending_seconds=0.2,
        terminating_seconds=0.2,
    )
