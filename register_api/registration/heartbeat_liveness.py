"""Records that heartbeats can be written, so that the fleet distinguishes silent boxes from an API outage."""

import asyncio
from datetime import timedelta

import psycopg
import structlog

from store.db.pool import Pool, StoreUnavailable, connection
from store.fleet import recreate_permits

MAX_INTERVAL = timedelta(seconds=5)

log: structlog.stdlib.BoundLogger = structlog.get_logger("heartbeat_intake")


async def record_intake(pool: Pool, *, stale: timedelta) -> None:
    """Update the heartbeat intake until cancelled, so often that only an outage leaves a gap of `stale`."""
    pause = min(stale / 10, MAX_INTERVAL)
    while True:
        try:
            async with connection(pool) as conn:
                await recreate_permits.record_intake(conn, gap=stale)
        except (StoreUnavailable, psycopg.Error) as error:
            # Never stop, not even before the migration: without intake the fleet stays paused.
            log.warning("heartbeat_intake.unavailable", cause=f"{type(error).__name__}: {error}"[:200])
        await asyncio.sleep(pause.total_seconds())
