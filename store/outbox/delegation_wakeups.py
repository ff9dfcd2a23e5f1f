"""The outbox of delegations that have to be looked at again: taken in order, deleted once it is told.

Each insertion names what has changed; what follows from it is decided elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationEvent:
    """One delegation; it may be there several times."""

    event_id: int
    delegation_id: str


async def claim_delegation_events(
    conn: Connection, limit: int, *, exclude: Sequence[int] = ()
) -> list[DelegationEvent]:
    """The oldest ones that no other relay holds, held to the end of the caller's transaction.

    More of them than are told at once: one word to a delegation's workflow answers all that it finds here.
    """
    cursor = conn.cursor(row_factory=class_row(DelegationEvent))
    await cursor.execute(
        """
        SELECT event_id, delegation_id FROM delegation_outbox WHERE event_id <> ALL(%s)
        ORDER BY event_id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        [list(exclude), limit],
    )
    return await cursor.fetchall()


async def delete_delegation_events(conn: Connection, event_ids: Sequence[int]) -> None:
    """Their workflows know."""
    await conn.execute("DELETE FROM delegation_outbox WHERE event_id = ANY(%s)", [list(event_ids)])


async def wake_delegation(conn: Connection, delegation_id: str) -> None:
    """Have its workflow look again."""
    await conn.execute("INSERT INTO delegation_outbox (delegation_id) VALUES (%s)", [delegation_id])


async def wake_inbound(conn: Connection, workspace_id: str) -> None:
    """The workspace's box is no more: all that is under way to it has to be looked at again."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE target_id = %s AND type = 'delegate'
          AND state IN ('queued', 'delivered', 'acked', 'in_progress')
        """,
        [workspace_id],
    )


async def wake_queued(conn: Connection, workspace_id: str) -> None:
    """The workspace's box can be reached: what waits for it can be sent. What it has already is its own."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE target_id = %s AND type = 'delegate' AND state = 'queued' AND NOT dead_lettered
        """,
        [workspace_id],
    )


async def wake_outbound(conn: Connection, workspace_id: str) -> None:
    """The workspace is deleted: nobody waits for what it asked for."""
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations
        WHERE source_id = %s AND ended_at IS NULL
        """,
        [workspace_id],
    )


async def wake_overdue(conn: Connection, *, after: timedelta) -> None:
    """Those that should have ended long ago: their workflow was taken away, or never began.

    One that is being told already is not told again.
    """
    await conn.execute(
        """
        INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM delegations d
        WHERE ended_at IS NULL AND type <> 'canary' AND created_at < now() - %s - interval '1 minute'
          AND NOT EXISTS (SELECT FROM delegation_outbox s WHERE s.delegation_id = d.delegation_id)
        ORDER BY created_at LIMIT 100
        """,
        [after],
    )
