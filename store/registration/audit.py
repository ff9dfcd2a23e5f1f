"""The audit trail of identity decisions: appending, reading a workspace's, and what its box was told.

Append-only, by the database's own word. It holds prefixes of tokens, never more.
"""

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from psycopg.rows import class_row

from store.db.pool import Connection

MAX_ROWS_SCANNED = 1000
"""Enough for what a box of one generation was told; a flood before it must not make the look slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One decision, before it is written."""

    workspace_id: str
    generation: int
    """The current generation when it was decided, or the newest one where none was."""
    operation: str
    identity: str
    credential_kind: str
    code: str
    """What it came to: an error's code, or a word for the success."""
    token_prefix: str | None
    """Of the presented token, if it is one of the workspace's."""
    source: IPv4Address | IPv6Address | None
    from_box: bool
    """Whether it came from the address recorded for the generation's instance."""
    needs_attention: bool
    request_id: str
    repeats: int = 0
    """How many like it came since the last row of its kind, and got none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow(AuditEntry):
    """One decision, as it stands in the trail."""

    audit_id: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCallSummary:
    """How often register calls about a generation got one answer."""

    code: str
    from_box: bool
    count: int
    last_at: datetime
    source: IPv4Address | IPv6Address | None
    """Of the last one."""


_COLUMNS = (
    "workspace_id, generation, operation, identity, credential_kind, code, token_prefix, source,"
    " from_box, needs_attention,"
    " request_id, repeats"
)


async def append(conn: Connection, entry: AuditEntry) -> None:
    """Write one decision; in the caller's transaction, if there is one."""
    await conn.execute(
        f"INSERT INTO audit_log ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",  # noqa: S608
        [
            entry.workspace_id,
            entry.generation,
            entry.operation,
            entry.identity,
            entry.credential_kind,
            entry.code,
            entry.token_prefix,
            entry.source,
            entry.from_box,
            entry.needs_attention,
            entry.request_id,
            entry.repeats,
        ],
    )


async def read(conn: Connection, workspace_id: str, *, before: int | None, limit: int) -> list[AuditRow]:
    """The newest decisions about a workspace, or the newest of those before an ID; newest first."""
    cursor = conn.cursor(row_factory=class_row(AuditRow))
    await cursor.execute(
        f"""
        SELECT audit_id, at, {_COLUMNS} FROM audit_log
        WHERE workspace_id = %s AND audit_id < coalesce(%s, 9223372036854775807)
        ORDER BY audit_id DESC LIMIT %s
        """,  # noqa: S608 - the columns are a constant
        [workspace_id, before, limit],
    )
    return await cursor.fetchall()


async def register_calls(
    conn: Connection, workspace_id: str, *, generation: int
) -> list[RegisterCallSummary]:
    """What came of the register calls while a generation was the current one, the newest kind first."""
    cursor = conn.cursor(row_factory=class_row(RegisterCallSummary))
    await cursor.execute(
        """
        SELECT code, from_box, sum(1 + repeats)::integer AS count, max(at) AS last_at,
               (array_agg(source ORDER BY audit_id DESC))[1] AS source
        FROM (SELECT * FROM audit_log WHERE workspace_id = %s ORDER BY audit_id DESC LIMIT %s) AS newest
        WHERE generation = %s AND operation = 'register'
        GROUP BY code, from_box ORDER BY max(at) DESC
        """,
        [workspace_id, MAX_ROWS_SCANNED, generation],
    )
    return await cursor.fetchall()
