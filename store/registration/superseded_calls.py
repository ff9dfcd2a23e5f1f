"""Events for calls from superseded boxes, rate-limited per generation.

The caller has proven which generation it belongs to.
"""

from datetime import timedelta

from store.db.pool import Connection

SUPERSEDED_CALL_GRACE = timedelta(minutes=2)
"""A termination takes a minute or two. A box that calls later was not terminated."""

_ENQUEUE_SUPERSEDED_CALL = """
WITH reported AS (
    INSERT INTO superseded_calls AS i (workspace_id, generation)
    SELECT workspace_id, generation FROM generations
    WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
      AND superseded_at < now() - %(grace)s
    ON CONFLICT (workspace_id, generation) DO UPDATE SET reported_at = now()
    WHERE i.reported_at < now() - %(grace)s
    RETURNING workspace_id, generation
)
INSERT INTO workspace_outbox (workspace_id, generation, kind)
SELECT workspace_id, generation, 'superseded_call' FROM reported
"""


async def enqueue_superseded_call(conn: Connection, workspace_id: str, *, generation: int) -> bool:
    """Insert an event unless one was inserted recently, or the generation was superseded recently."""
    cursor = await conn.execute(
        _ENQUEUE_SUPERSEDED_CALL,
        {"workspace_id": workspace_id, "generation": generation, "grace": SUPERSEDED_CALL_GRACE},
    )
    return cursor.rowcount == 1
