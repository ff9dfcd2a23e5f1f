"""What a worker asks of PostgreSQL and Temporal to know whether it can work.

Asks, and says what is in the way; changes nothing, and raises nothing that passes by itself.
"""

from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError

from store.db import migrate
from store.db.pool import Pool, StoreUnavailable, connection

TEMPORAL_TIMEOUT = timedelta(seconds=3)


async def database(pool: Pool) -> str | None:
    """It answers, and has what this code needs."""
    try:
        async with connection(pool) as conn:
            missing = await migrate.pending(conn)
    except StoreUnavailable as error:
        return f"unavailable ({error})"
    return f"migrations missing: {', '.join(missing)}" if missing else None


async def temporal(client: Client) -> str | None:
    """The front end answers, and says that it serves."""
    try:
        serving = await client.service_client.check_health(timeout=TEMPORAL_TIMEOUT)
    except RPCError as error:
        return f"unavailable ({error.status.name})"
    return None if serving else "not serving"
