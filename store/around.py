"""What the database has of a workspace's past: the audit trail and the delegations of a stretch of time.

Reads only, and only so much: a flood in the trail must not make a page that no browser opens.
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.audit import Row
from store.pool import Connection

MOST = 2_000
"""Rows of each kind; the oldest of the time come first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handed:
    """A delegation from or to the workspace, without its content."""

    delegation_id: str
    type: str
    source_id: str | None
    target_id: str
    state: str
    attempt: int
    target_generation: int | None
    stalled: bool
    held: bool
    error_code: str | None
    created_at: datetime
    delivered_at: datetime | None
    progressed_at: datetime | None
    ended_at: datetime | None


async def audit(conn: Connection, workspace_id: str, *, begin: datetime, end: datetime) -> list[Row]:
    """What callers of the register API were told, oldest first."""
    cursor = conn.cursor(row_factory=class_row(Row))
    await cursor.execute(
        """
        SELECT audit_id, at, workspace_id, generation, call, verdict, bearer, code, token_prefix, source,
               from_box, alert, request_id, repeats
        FROM audit WHERE workspace_id = %s AND at BETWEEN %s AND %s ORDER BY audit_id LIMIT %s
        """,
        [workspace_id, begin, end, MOST],
    )
    return await cursor.fetchall()


async def handed(conn: Connection, workspace_id: str, *, begin: datetime, end: datetime) -> list[Handed]:
    """Delegations that were open at some time of the stretch, oldest first; canaries are told as steps."""
    cursor = conn.cursor(row_factory=class_row(Handed))
    await cursor.execute(
        """
        SELECT delegation_id, type, source_id, target_id, state, attempt, target_generation, stalled, held,
               error_code, created_at, delivered_at, progressed_at, ended_at
        FROM delegations
        WHERE (source_id = %(workspace)s OR target_id = %(workspace)s) AND type <> 'canary'
          AND created_at <= %(end)s AND coalesce(ended_at, %(end)s) >= %(begin)s
        ORDER BY created_at, delegation_id LIMIT %(most)s
        """,
        {"workspace": workspace_id, "begin": begin, "end": end, "most": MOST},
    )
    return await cursor.fetchall()
