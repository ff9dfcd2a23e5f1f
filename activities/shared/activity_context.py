"""What every activity runs within: heartbeats, names on its log lines, errors that say what follows.

It knows nothing of what the activity does.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TypeVar

from structlog.contextvars import bound_contextvars
from temporalio import activity

from activities.shared.application_errors import translated

HEARTBEAT_INTERVAL = timedelta(seconds=1)
"""Well within the heartbeat timeouts of the policies, of which the shortest is 10 s."""

R = TypeVar("R")


@asynccontextmanager
async def activity_context(
    about: str | None, generation: int | None = None, *, kind: str = "workspace"
) -> AsyncIterator[None]:
    """Beat while the body runs, also while it waits for a call that must not be abandoned."""
    names: dict[str, str | int] = {kind: about} if about is not None else {}
    if generation is not None:
        names["generation"] = generation
    beats = asyncio.create_task(_heartbeat())
    try:
        with bound_contextvars(**names), translated():
            yield
    finally:
        beats.cancel()


async def shield_until_done(work: Awaitable[R]) -> R:
    """Await the work; a cancellation waits for its end too, and goes on only then.

    A worker that shuts down must not leave a thread behind that still launches an instance.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio doesn't complain of one that nobody wants any more
        raise


async def _heartbeat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL.total_seconds())
        activity.heartbeat()
