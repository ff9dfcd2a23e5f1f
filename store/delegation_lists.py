"""What is shown of delegations: a source's list, and how much work is under way to a workspace.

Changes nothing but when the end of one was first shown to its source.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.pool import Connection

SHOWN_AGAIN_FOR = timedelta(minutes=2)
"""A poll whose answer was lost shows the same ends again: its client marks an ID as seen once it has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One delegation in a list."""

    delegation_id: str
    type: str
    source_id: str
    target_id: str
    summary: str
    state: str
    created_at: datetime
    error: str | None
    response_preview: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is under way to a workspace."""

    state: str
    count: int
    held: int
    stalled: int
    oldest_at: datetime


_LIST = """
SELECT delegation_id, type, source_id, target_id, left(task, %(preview)s) AS summary, state, created_at,
       error, response_preview
FROM delegations WHERE source_id = %(source_id)s ORDER BY created_at DESC, delegation_id LIMIT %(limit)s
"""

# Ends that were never shown go first, the oldest of them before the others, then those that were shown a
# moment ago; what room is left is for the newest. A poller with more than a page of work misses none.
_POLL = """
WITH ended AS (
    SELECT delegation_id FROM delegations
    WHERE source_id = %(source_id)s AND ended_at IS NOT NULL
      AND (listed_at IS NULL OR listed_at > now() - %(again)s)
    ORDER BY listed_at NULLS FIRST, ended_at LIMIT %(limit)s
), newest AS (
    SELECT delegation_id FROM delegations
    WHERE source_id = %(source_id)s AND delegation_id NOT IN (SELECT delegation_id FROM ended)
    ORDER BY created_at DESC, delegation_id LIMIT %(limit)s - (SELECT count(*) FROM ended)
), shown AS (
    SELECT delegation_id FROM ended UNION ALL SELECT delegation_id FROM newest
), marked AS (
    UPDATE delegations SET listed_at = now()
    WHERE delegation_id IN (SELECT delegation_id FROM shown) AND ended_at IS NOT NULL AND listed_at IS NULL
)
SELECT delegation_id, type, source_id, target_id, left(task, %(preview)s) AS summary, state, created_at,
       error, response_preview
FROM delegations WHERE delegation_id IN (SELECT delegation_id FROM shown)
ORDER BY created_at DESC, delegation_id
"""


async def of_source(
    conn: Connection, source_id: str, *, limit: int, preview: int, polled: bool
) -> list[Listed]:
    """The source's delegations, newest first; `polled` by the source itself, which must miss no end."""
    cursor = conn.cursor(row_factory=class_row(Listed))
    await cursor.execute(
        _POLL if polled else _LIST,
        {"source_id": source_id, "limit": limit, "preview": preview, "again": SHOWN_AGAIN_FOR},
    )
    return await cursor.fetchall()


async def under_way(conn: Connection, target_id: str) -> list[Work]:
    """What is not over yet, by state."""
    cursor = conn.cursor(row_factory=class_row(Work))
    await cursor.execute(
        """
        SELECT state, count(*) AS count, count(*) FILTER (WHERE held) AS held,
               count(*) FILTER (WHERE stalled) AS stalled,
               min(coalesce(delivered_at, created_at)) AS oldest_at
        FROM delegations
        WHERE target_id = %s AND type <> 'canary' AND state IN ('queued', 'delivered', 'acked', 'in_progress')
        GROUP BY state ORDER BY state
        """,
        [target_id],
    )
    return await cursor.fetchall()
