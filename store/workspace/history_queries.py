"""Reads a workspace's history of a period: audit log and delegations. At most `ROW_LIMIT` rows of each."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.db.pool import Connection
from store.registration.audit import AuditRow

ROW_LIMIT = 2_000
"""Maximum rows of each kind: a flood of audit entries must not make the page too large for a browser."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationSummary:
    """A delegation from or to the workspace, without its task and result."""

    delegation_id: str
    type: str
    source_id: str | None
    target_id: str
    state: str
    attempts: int
    target_generation: int | None
    stalled: bool
    dead_lettered: bool
    error_code: str | None
    created_at: datetime
    delivered_at: datetime | None
    progressed_at: datetime | None
    ended_at: datetime | None


async def audit_entries(
    conn: Connection, workspace_id: str, *, begin: datetime, end: datetime
) -> list[AuditRow]:
    """The audit entries of the period, oldest first."""
    cursor = conn.cursor(row_factory=class_row(AuditRow))
    await cursor.execute(
        """
        SELECT audit_id, at, workspace_id, generation, operation, identity, credential_kind, code,
               token_prefix, source, from_box, needs_attention, request_id, repeats
        FROM audit_log WHERE workspace_id = %s AND at BETWEEN %s AND %s ORDER BY audit_id LIMIT %s
        """,
        [workspace_id, begin, end, ROW_LIMIT],
    )
    return await cursor.fetchall()


async def delegations(
    conn: Connection, workspace_id: str, *, begin: datetime, end: datetime
) -> list[DelegationSummary]:
    """Delegations that were open during the period, oldest first, without canaries."""
    cursor = conn.cursor(row_factory=class_row(DelegationSummary))
    await cursor.execute(
        """
        SELECT delegation_id, type, source_id, target_id, state, attempts, target_generation, stalled,
               dead_lettered, error_code, created_at, delivered_at, progressed_at, ended_at
        FROM delegations
        WHERE (source_id = %(workspace)s OR target_id = %(workspace)s) AND type <> 'canary'
          AND created_at <= %(end)s AND coalesce(ended_at, %(end)s) >= %(begin)s
        ORDER BY created_at, delegation_id LIMIT %(limit)s
        """,
        {"workspace": workspace_id, "begin": begin, "end": end, "limit": ROW_LIMIT},
    )
    return await cursor.fetchall()
