"""The fleet's figures, and the places for automatic recreates.

Counts and keeps; what the figures amount to is judged elsewhere.
"""

from datetime import timedelta

from psycopg.rows import class_row

from store.pool import Connection
from workflows.fleet import FleetFigures

LOCK_KEY = 0x6F6E65666C7421
"""The advisory lock under which places are counted and taken: "oneflt!" in ASCII."""

# A place is in use from its taking until the generation that it was taken for is online, or has failed. One
# that is not used within a minute was taken by a workflow that changed its mind; one that is held for an
# hour waits for a human, and must not hold up the others.
_FIGURES = """
SELECT now() AS now,
       (SELECT count(*) FROM generations WHERE superseded_at IS NULL) AS running,
       (SELECT count(*) FROM beats b
        JOIN generations g ON g.workspace_id = b.workspace_id AND g.generation = b.generation
        WHERE b.silent_since IS NOT NULL AND g.superseded_at IS NULL) AS stale,
       (SELECT count(*) FROM recreate_slots s JOIN workspaces w USING (workspace_id)
        WHERE s.workspace_id IS DISTINCT FROM %(but)s
          AND (w.generation < s.generation AND s.taken_at > now() - interval '1 minute'
               OR w.generation = s.generation AND s.taken_at > now() - interval '1 hour'
                  AND w.phase IN ('provisioning', 'recreating', 'awaiting_registration'))) AS recreating,
       (SELECT last_at FROM intake) AS intake_at,
       (SELECT since FROM intake) AS intake_since,
       (SELECT seen_at FROM many_stale) AS many_stale_at
"""


async def hold(conn: Connection) -> None:
    """Count and take alone, to the end of the transaction."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK_KEY])


async def figures(conn: Connection, *, but: str | None = None) -> FleetFigures:
    """Count; `but` is a workspace whose own place is not counted."""
    cursor = conn.cursor(row_factory=class_row(FleetFigures))
    await cursor.execute(_FIGURES, {"but": but})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("a query without a table has one row")
    return row


async def take_place(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Take a place for opening this generation; taken again, it is the same one."""
    await conn.execute(
        """
        INSERT INTO recreate_slots (workspace_id, generation) VALUES (%s, %s)
        ON CONFLICT (workspace_id) DO UPDATE SET generation = excluded.generation, taken_at = now()
        """,
        [workspace_id, generation],
    )


async def note_many_stale(conn: Connection) -> None:
    """Too many are stale at once, now."""
    await conn.execute(
        """
        INSERT INTO many_stale (seen_at) VALUES (now())
        ON CONFLICT (only_row) DO UPDATE SET seen_at = greatest(many_stale.seen_at, excluded.seen_at)
        """
    )


async def note_intake(conn: Connection, *, gap: timedelta) -> None:
    """Beats can be taken in now; after a longer time than `gap` without this, that has begun anew."""
    await conn.execute(
        """
        INSERT INTO intake AS i DEFAULT VALUES
        ON CONFLICT (only_row) DO UPDATE
        SET since = CASE WHEN now() - i.last_at >= %s THEN now() ELSE i.since END, last_at = now()
        """,
        [gap],
    )
