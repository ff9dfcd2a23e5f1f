"""Readiness checks for PostgreSQL and Temporal: each returns a problem as text, or None."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from store.db import migrate
from store.db.pool import Pool, StoreUnavailable, connection

TEMPORAL_TIMEOUT = timedelta(seconds=3)


async def database(pool: Pool) -> str | None:
    """Check that PostgreSQL answers and that all migrations are applied."""
    try:
        async with connection(pool) as conn:
            missing = await migrate.pending(conn)
    except StoreUnavailable as error:
        return f"unavailable ({error})"
    return f"migrations missing: {', '.join(missing)}" if missing else None


async def temporal(client: Client) -> str | None:
    """Check that Temporal's frontend reports that it is serving."""
    try:
        serving = await client.service_client.check_health(timeout=TEMPORAL_TIMEOUT)
    except RPCError as error:
        return f"unavailable ({error.status.name})"
    return None if serving else "not serving"
