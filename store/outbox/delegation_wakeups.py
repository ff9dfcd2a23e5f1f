"""Transactional outbox of delegations whose workflow must read its delegation again.

A row is inserted in the transaction that changes the delegation, and deleted once the relay has signalled the
workflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationWakeup:
    """A delegation to wake. The outbox may contain it several times."""

    event_id: int
    delegation_id: str


async def claim_batch(conn: Connection, limit: int, *, exclude: Sequence[int] = ()) -> list[DelegationWakeup]:
    """Lock the oldest rows that no other relay has locked, until the end of the caller's transaction.

    Skips the IDs in `exclude`. One signal to a workflow covers all rows of its delegation.
    """
    cursor = conn.cursor(row_factory=class_row(DelegationWakeup))
    await cursor.execute(
        """
        SELECT event_id, delegation_id FROM delegation_outbox WHERE event_id <> ALL(%s)
        ORDER BY event_id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        [list(exclude), limit],
    )
    return await cursor.fetchall()


async def delete(conn: Connection, event_ids: Sequence[int]) -> None:
    """Delete rows whose workflows were signalled."""
    await conn.execute("DELETE FROM delegation_outbox WHERE event_id = ANY(%s)", [list(event_ids)])


async def enqueue(conn: Connection, delegation_id: str) -> None:
    """Wake the workflow of one delegation."""
    await conn.execute("INSERT INTO delegation_outbox (delegation_id) VALUES (%s)", [delegation_id])


async def enqueue_inbound(conn: Connection, workspace_id: str) -> None:
    """Wake every open delegation to this workspace; its box was replaced."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE target_id = %s AND type = 'delegate'
          AND state IN ('queued', 'delivered', 'acked', 'in_progress')
        """,
        [workspace_id],
    )


async def enqueue_queued(conn: Connection, workspace_id: str) -> None:
    """Wake the queued delegations to this workspace; its box is reachable now."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE target_id = %s AND type = 'delegate' AND state = 'queued' AND NOT dead_lettered
        """,
        [workspace_id],
    )


async def enqueue_outbound(conn: Connection, workspace_id: str) -> None:
    """Wake every open delegation from this workspace; it is deleted."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE source_id = %s AND state IN ('queued', 'delivered', 'acked', 'in_progress')
        """,
        [workspace_id],
    )


async def enqueue_overdue(conn: Connection, *, after: timedelta) -> None:
    """Wake open delegations past their expiry: their workflow was terminated or never started.

    Skips delegations that are in the outbox already.
    """
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations d
        WHERE ended_at IS NULL AND type <> 'canary' AND created_at < now() - %s - interval '1 minute'
          AND NOT EXISTS (SELECT FROM delegation_outbox o WHERE o.delegation_id = d.delegation_id)
        ORDER BY created_at LIMIT 100
        """,
        [after],
    )
