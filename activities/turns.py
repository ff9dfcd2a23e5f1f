"""Turns at a target: only so many deliveries to one box at once, so that a slow one holds up no other.

Knows nothing of what is delivered, and of this process only; what finds no turn is to be looked at later.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

AT_ONCE = 8
"""Of the worker's hundred places. A box that drips keeps each of its own for a minute."""

PATIENCE = timedelta(milliseconds=500)
"""A box that is well answers within it; whoever waits keeps a place of the worker's, too."""

SOONEST = timedelta(seconds=1)
LATEST = timedelta(seconds=30)
"""As between tries to reach a box."""


class Crowded(Exception):
    """There was no turn in time."""


@dataclass(slots=True)
class _Box:
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    present: int = 0


class Turns:
    """Who is at which box now; a box that nobody is at takes no room."""

    def __init__(self) -> None:
        self._boxes: dict[str, _Box] = {}

    @asynccontextmanager
    async def turn(self, target_id: str) -> AsyncIterator[None]:
        """A place at the box for the block. Raises `Crowded`, before the block."""
        box = self._boxes.setdefault(target_id, _Box())
        box.present += 1
        try:
            await _come_in(box)
            try:
                yield
            finally:
                box.places.release()
        finally:
            box.present -= 1
            if not box.present:
                del self._boxes[target_id]


async def _come_in(box: _Box) -> None:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await box.places.acquire()
    except TimeoutError:
        raise Crowded from None


def again_after(age: timedelta) -> timedelta:
    """When to look again, of what has waited for so long: a crowd looks ever less often."""
    return min(max(age / 4, SOONEST), LATEST)
