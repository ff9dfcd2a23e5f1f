"""Lists of delegations: those of a source, and the open work of a target.

Read-only, except for the number of times that a result was listed.
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.db.pool import Connection

RESULT_LISTINGS = 12
"""Clients cannot acknowledge. Finished delegations are listed 12 times, in varying order: if a third of the
responses is lost, a client misses one result in 500,000. Clients deduplicate by ID."""


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
    """Open delegations to a workspace in one state."""

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

# The results that were listed least come first; the newest delegations fill the page. So a poller gets all
# results even if they exceed a page. The order changes from round to round: a poller that loses every third
# response must not lose the same results each time.
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
    UPDATE delegations SET times_listed = times_listed + 1
    WHERE delegation_id IN (SELECT delegation_id FROM ended)
)
SELECT delegation_id, type, source_id, target_id, left(task, %(preview)s) AS summary, state, created_at,
       error, response_preview
FROM delegations WHERE delegation_id IN (SELECT delegation_id FROM page)
ORDER BY created_at DESC, delegation_id
"""


async def list_for_source(
    conn: Connection, source_id: str, *, limit: int, preview: int, polled: bool
) -> list[ListedDelegation]:
    """The source's delegations, newest first.

    `polled` is for the source's own box: each result is listed, and counts the listing (`RESULT_LISTINGS`).
    """
    cursor = conn.cursor(row_factory=class_row(ListedDelegation))
    await cursor.execute(
        _POLL if polled else _LIST,
        {"source_id": source_id, "limit": limit, "preview": preview, "times": RESULT_LISTINGS},
    )
    return await cursor.fetchall()


async def inbound_work(conn: Connection, target_id: str) -> list[InboundWork]:
    """The open delegations to a workspace, by state."""
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
