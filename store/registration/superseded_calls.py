"""Superseded boxes that call: telling the lifecycle of them, once in a while for each generation.

The caller has proven which generation it is of; what is to be done about it is the lifecycle's matter.
"""

from datetime import timedelta

from store.db.pool import Connection

SUPERSEDED_CALL_GRACE = timedelta(minutes=2)
"""A termination takes a minute or two. A box that calls later, after its generation was superseded or after
the lifecycle was told of it, was not ended by what was done then."""

_ENQUEUE_SUPERSEDED_CALL = """
WITH told AS (
    INSERT INTO superseded_calls AS i (workspace_id, generation)
    SELECT workspace_id, generation FROM generations
    WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
      AND superseded_at < now() - %(grace)s
    ON CONFLICT (workspace_id, generation) DO UPDATE SET reported_at = now()
    WHERE i.reported_at < now() - %(grace)s
    RETURNING workspace_id, generation
)
INSERT INTO workspace_outbox (workspace_id, generation, kind) SELECT workspace_id, generation,
'superseded_call' FROM told
"""


async def enqueue_superseded_call(conn: Connection, workspace_id: str, *, generation: int) -> bool:
    """Insert the fact, unless its end was ordered a moment ago; whether it was inserted."""
    cursor = await conn.execute(
        _ENQUEUE_SUPERSEDED_CALL,
        {"workspace_id": workspace_id, "generation": generation, "grace": SUPERSEDED_CALL_GRACE},
    )
    return cursor.rowcount == 1
