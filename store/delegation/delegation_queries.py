"""What is shown of delegations: a source's list, and how much work is under way to a workspace.

Changes nothing but how often the end of one was shown to its source.
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.db.pool import Connection

RESULT_LISTINGS = 12
"""Nobody says which answer was lost, so each end is shown again, in another order, until it can't have been
missed: where one answer in three is lost, one end in half a million is. Clients mark an ID as seen once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDelegation:
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
class InboundWork:
    """What is under way to a workspace."""

    state: str
    count: int
    dead_lettered: int
    stalled: int
    oldest_at: datetime


_LIST = """
SELECT delegation_id, type, source_id, target_id, left(task, %(preview)s) AS summary, state, created_at,
       error, response_preview
FROM delegations WHERE source_id = %(source_id)s ORDER BY created_at DESC, delegation_id LIMIT %(limit)s
"""

# Ends that were shown the least go first; what room is left is for the newest. A poller with more than a page
# of work misses none. The order within a round differs from round to round: a poller that loses every third
# answer must not lose the same ends each time.
_POLL = """
WITH ended AS (
    SELECT delegation_id FROM delegations
    WHERE source_id = %(source_id)s AND ended_at IS NOT NULL
      AND times_listed < %(times)s
    ORDER BY times_listed, CASE WHEN times_listed > 0 THEN md5(delegation_id || times_listed) END, ended_at
    LIMIT %(limit)s
), newest AS (
    SELECT delegation_id FROM delegations
    WHERE source_id = %(source_id)s AND delegation_id NOT IN (SELECT delegation_id FROM ended)
    ORDER BY created_at DESC, delegation_id LIMIT %(limit)s - (SELECT count(*) FROM ended)
), page AS (
    SELECT delegation_id FROM ended UNION ALL SELECT delegation_id FROM newest
), marked AS (
    UPDATE delegations SET times_listed = times_listed + 1 WHERE delegation_id IN (SELECT delegation_id
    FROM ended)
)
SELECT delegation_id, type, source_id, target_id, left(task, %(preview)s) AS summary, state, created_at,
       error, response_preview
FROM delegations WHERE delegation_id IN (SELECT delegation_id FROM page)
ORDER BY created_at DESC, delegation_id
"""


async def list_for_source(
    conn: Connection, source_id: str, *, limit: int, preview: int, polled: bool
) -> list[ListedDelegation]:
    """The source's delegations, newest first; `polled` by the source itself, which must miss no end."""
    cursor = conn.cursor(row_factory=class_row(ListedDelegation))
    await cursor.execute(
        _POLL if polled else _LIST,
        {"source_id": source_id, "limit": limit, "preview": preview, "times": RESULT_LISTINGS},
    )
    return await cursor.fetchall()


async def inbound_work(conn: Connection, target_id: str) -> list[InboundWork]:
    """What is not over yet, by state."""
    cursor = conn.cursor(row_factory=class_row(InboundWork))
    await cursor.execute(
        """
        SELECT state, count(*) AS count, count(*) FILTER (WHERE dead_lettered) AS dead_lettered,
               count(*) FILTER (WHERE stalled) AS stalled,
               min(coalesce(delivered_at, created_at)) AS oldest_at
        FROM delegations
        WHERE target_id = %s AND type <> 'canary' AND state IN ('queued', 'delivered', 'acked', 'in_progress')
        GROUP BY state ORDER BY state
        """,
        [target_id],
    )
    return await cursor.fetchall()
