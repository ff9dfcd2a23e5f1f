"""The context of every activity: heartbeats, log fields, and translated errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from structlog.contextvars import bound_contextvars
from temporalio import activity

from activities.shared.application_errors import translated

HEARTBEAT_INTERVAL = timedelta(seconds=1)
"""The shortest heartbeat timeout of an activity is 10 s."""


@asynccontextmanager
async def activity_context(
    subject: str | None, generation: int | None = None, *, kind: str = "workspace"
) -> AsyncIterator[None]:
    """Send activity heartbeats while the body runs, bind log fields, and translate errors.

    Heartbeats continue while a cancelled activity waits for a shielded call.
    """
    fields: dict[str, str | int] = {kind: subject} if subject is not None else {}
    if generation is not None:
        fields["generation"] = generation
    heartbeats = asyncio.create_task(_heartbeat())
    try:
        with bound_contextvars(**fields), translated():
            yield
    finally:
        heartbeats.cancel()


async def _heartbeat() -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_INTERVAL.total_seconds())
        activity.heartbeat()
