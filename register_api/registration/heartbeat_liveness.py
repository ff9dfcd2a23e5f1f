"""Keeping a note that beats can be taken in: how the fleet tells silent boxes from a deaf control plane.

It takes no beat in itself, and a database that is away is only waited for: that is what the gap tells.
"""

import asyncio
from datetime import timedelta

import psycopg
import structlog

from store.db.pool import Pool, StoreUnavailable, connection
from store.fleet import recreate_permits

MAX_INTERVAL = timedelta(seconds=5)

log: structlog.stdlib.BoundLogger = structlog.get_logger("heartbeat_intake")


async def record_intake(pool: Pool, *, stale: timedelta) -> None:
    """Note it often enough that only an outage makes a gap of `stale`; runs until cancelled."""
    pause = min(stale / 10, MAX_INTERVAL)
    while True:
        try:
            async with connection(pool) as conn:
                await recreate_permits.record_intake(conn, gap=stale)
        except (StoreUnavailable, psycopg.Error) as error:
            # Before the migration, too: a note that ended for good would freeze the fleet for good.
            log.warning("heartbeat_intake.unavailable", cause=f"{type(error).__name__}: {error}"[:200])
        await asyncio.sleep(pause.total_seconds())
