"""The fleet's figures, and the places for automatic recreates.

Counts and keeps; what the figures amount to is judged elsewhere.
"""

from datetime import timedelta

from psycopg.rows import class_row

from store.db.pool import Connection
from workflows.fleet.rules import FleetCounts

LOCK_KEY = 0x6F6E65666C7421
"""The advisory lock under which places are counted and taken: "oneflt!" in ASCII."""

# A place is in use from its taking until the generation that it was taken for is online, or has failed. One
# that is not used within a minute was taken by a workflow that changed its mind; one that is held for an
# hour waits for a human, and must not hold up the others.
_COUNTS = """
SELECT now() AS now,
       (SELECT count(*) FROM generations WHERE superseded_at IS NULL) AS running,
       (SELECT count(*) FROM heartbeats b
        JOIN generations g ON g.workspace_id = b.workspace_id AND g.generation = b.generation
        WHERE b.stale_since IS NOT NULL AND g.superseded_at IS NULL) AS stale,
       (SELECT count(*) FROM recreate_permits s JOIN workspaces w USING (workspace_id)
        WHERE s.workspace_id IS DISTINCT FROM %(exclude)s
          AND (w.generation < s.generation AND s.granted_at > now() - interval '1 minute'
               OR w.generation = s.generation AND s.granted_at > now() - interval '1 hour'
                  AND w.phase IN ('provisioning', 'recreating', 'awaiting_registration'))) AS recreating,
       (SELECT last_seen_at FROM heartbeat_intake) AS intake_at,
       (SELECT gapless_since FROM heartbeat_intake) AS intake_since,
       (SELECT seen_at FROM fleet_stale_events) AS fleet_stale_at
"""


async def lock(conn: Connection) -> None:
    """Count and take alone, to the end of the transaction."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])


async def read_figures(conn: Connection, *, exclude: str | None = None) -> FleetCounts:
    """Count; `exclude` is a workspace whose own place is not counted."""
    cursor = conn.cursor(row_factory=class_row(FleetCounts))
    await cursor.execute(_COUNTS, {"exclude": exclude})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("a query without a table has one row")
    return row


async def grant_permit(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Take a place for opening this generation; taken again, it is the same one."""
    await conn.execute(
        """
        INSERT INTO recreate_permits (workspace_id, generation) VALUES (%s, %s)
        ON CONFLICT (workspace_id) DO UPDATE SET generation = excluded.generation, granted_at = now()
        """,
        [workspace_id, generation],
    )


async def record_fleet_stale(conn: Connection) -> None:
    """Too many are stale at once, now."""
    await conn.execute(
        """
        INSERT INTO fleet_stale_events (seen_at) VALUES (now())
        ON CONFLICT (only_row) DO UPDATE SET seen_at = greatest(fleet_stale_events.seen_at, excluded.seen_at)
        """
    )


async def record_intake(conn: Connection, *, gap: timedelta) -> None:
    """Beats can be taken in now; after a longer time than `gap` without this, that has begun anew."""
    await conn.execute(
        """
        INSERT INTO heartbeat_intake AS i DEFAULT VALUES
        ON CONFLICT (only_row) DO UPDATE
        SET gapless_since = CASE WHEN now() - i.last_seen_at >= %s THEN now() ELSE i.gapless_since END,
            last_seen_at = now()
        """,
        [gap],
    )
