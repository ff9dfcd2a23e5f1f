"""The audit log of identity decisions. Append-only, enforced by the database. Holds token prefixes only."""

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address

from psycopg.rows import class_row

from store.db.pool import Connection

MAX_ROWS_SCANNED = 1000
"""Enough for the register calls of one generation. Bounds the query if there is a flood of calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A decision to write."""

    workspace_id: str
    generation: int
    """The current generation at the time of the decision, or the newest one if none was current."""
    operation: str
    identity: str
    credential_kind: str
    code: str
    """The result: an error code, or the kind of success."""
    token_prefix: str | None
    """Of the presented token, if it belongs to the workspace."""
    source: IPv4Address | IPv6Address | None
    from_box: bool
    """Whether the call came from the recorded address of the generation's instance."""
    needs_attention: bool
    request_id: str
    repeats: int = 0
    """Similar calls since the last row that got no row of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow(AuditEntry):
    """A stored decision."""

    audit_id: int
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterCallSummary:
    """Register calls about a generation with the same result."""

    code: str
    from_box: bool
    count: int
    last_at: datetime
    source: IPv4Address | IPv6Address | None
    """Of the last call."""


_COLUMNS = (
    "workspace_id, generation, operation, identity, credential_kind, code, token_prefix, source,"
    " from_box, needs_attention, request_id, repeats"
)


async def append(conn: Connection, entry: AuditEntry) -> None:
    """Insert a decision, in the caller's transaction if there is one."""
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
    """The newest decisions about a workspace, newest first; only those before the ID `before` if given."""
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
    """The register calls while the generation was current, by result. The most recent result comes first."""
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
