"""The fleet's counts, and permits for automatic recreates."""

from datetime import timedelta

from psycopg.rows import class_row

from store.db.pool import Connection
from workflows.fleet.rules import FleetCounts

LOCK_KEY = 0x6F6E65666C7421
"""The advisory lock that serializes counting and granting: "oneflt!" in ASCII."""

# A permit is in use until its generation is online or has failed. If the generation is not opened within a
# minute, the workflow dropped the recreate. After an hour, the recreate waits for an operator and must not
# block others.
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
    """Serialize counting and granting until the transaction ends."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])


async def read_counts(conn: Connection, *, exclude: str | None = None) -> FleetCounts:
    """Count the fleet. The permit of the workspace `exclude` is not counted."""
    cursor = conn.cursor(row_factory=class_row(FleetCounts))
    await cursor.execute(_COUNTS, {"exclude": exclude})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("the query of counts returned no row")
    return row


async def grant_permit(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Grant a permit for this generation. Granting it again has no further effect."""
    await conn.execute(
        """
        INSERT INTO recreate_permits (workspace_id, generation) VALUES (%s, %s)
        ON CONFLICT (workspace_id) DO UPDATE SET generation = excluded.generation, granted_at = now()
        """,
        [workspace_id, generation],
    )


async def record_fleet_stale(conn: Connection) -> None:
    """Record that too many workspaces are stale now."""
    await conn.execute(
        """
        INSERT INTO fleet_stale_events (seen_at) VALUES (now())
        ON CONFLICT (only_row) DO UPDATE SET seen_at = greatest(fleet_stale_events.seen_at, excluded.seen_at)
        """
    )


async def record_intake(conn: Connection, *, gap: timedelta) -> None:
    """Record that heartbeats can be stored. A gap of `gap` without a call restarts the gapless time."""
    await conn.execute(
        """
        INSERT INTO heartbeat_intake AS i DEFAULT VALUES
        ON CONFLICT (only_row) DO UPDATE
        SET gapless_since = CASE WHEN now() - i.last_seen_at >= %s THEN now() ELSE i.gapless_since END,
            last_seen_at = now()
        """,
        [gap],
    )
