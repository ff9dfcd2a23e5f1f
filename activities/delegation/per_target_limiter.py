"""Limits concurrent deliveries per box in this process, so that a slow box does not block the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

MAX_PER_TARGET = 8
"""Of the worker's 100 activity slots. A box that responds slowly occupies a slot for a minute."""

SLOT_TIMEOUT = timedelta(milliseconds=500)
"""A healthy box responds within it. A waiting delivery occupies an activity slot of the worker."""

MIN_RETRY = timedelta(seconds=1)
MAX_RETRY = timedelta(seconds=30)
"""The same as between attempts to connect to a box."""


class TooManyInFlight(Exception):
    """No slot became free in time."""


@dataclass(slots=True)
class _Target:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PER_TARGET))
    users: int = 0


class PerTargetLimiter:
    """The slots of each box with deliveries. Boxes without deliveries take no memory."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target] = {}

    @asynccontextmanager
    async def slot(self, target_id: str) -> AsyncIterator[None]:
        """Hold a slot of the box for the block. Raises `TooManyInFlight` before the block."""
        box = self._targets.setdefault(target_id, _Target())
        box.users += 1
        try:
            await _acquire(box)
            try:
                yield
            finally:
                box.slots.release()
        finally:
            box.users -= 1
            if not box.users:
                del self._targets[target_id]


async def _acquire(box: _Target) -> None:
    try:
        async with asyncio.timeout(SLOT_TIMEOUT.total_seconds()):
            await box.slots.acquire()
    except TimeoutError:
        raise TooManyInFlight from None


def retry_after(age: timedelta) -> timedelta:
    """Retry delay: a quarter of the age, between 1 s and 30 s, so that a backlog polls ever less often."""
    return min(max(age / 4, MIN_RETRY), MAX_RETRY)
