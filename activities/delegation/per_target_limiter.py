"""Turns at a target: only so many deliveries to one box at once, so that a slow one holds up no other.

Knows nothing of what is delivered, and of this process only; what finds no turn is to be looked at later.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

MAX_PER_TARGET = 8
"""Of the worker's hundred places. A box that drips keeps each of its own for a minute."""

SLOT_TIMEOUT = timedelta(milliseconds=500)
"""A box that is well answers within it; whoever waits keeps a place of the worker's, too."""

MIN_RETRY = timedelta(seconds=1)
MAX_RETRY = timedelta(seconds=30)
"""As between tries to reach a box."""


class TooManyInFlight(Exception):
    """There was no turn in time."""


@dataclass(slots=True)
class _Target:
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_PER_TARGET))
    users: int = 0


class PerTargetLimiter:
    """Who is at which box now; a box that nobody is at takes no room."""

    def __init__(self) -> None:
        self._targets: dict[str, _Target] = {}

    @asynccontextmanager
    async def slot(self, target_id: str) -> AsyncIterator[None]:
        """A place at the box for the block. Raises `TooManyInFlight`, before the block."""
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
    """When to look again, of what has waited for so long: a crowd looks ever less often."""
    return min(max(age / 4, MIN_RETRY), MAX_RETRY)
