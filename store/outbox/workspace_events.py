"""Transactional outbox of workspace events.

A row is inserted in the transaction that changes the state, and deleted once the relay has signalled the
workflow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceEvent:
    """An event about the box of a generation."""

    event_id: int
    workspace_id: str
    generation: int
    kind: str
    occurred_at: datetime
    detail: str


async def enqueue(conn: Connection, events: Sequence[tuple[str, int, str, str]]) -> None:
    """Insert events: workspace ID, generation, kind and detail of each."""
    if events:
        await conn.cursor().executemany(
            "INSERT INTO workspace_outbox (workspace_id, generation, kind, detail) VALUES (%s, %s, %s, %s)",
            events,
        )


async def claim_batch(conn: Connection, limit: int, *, exclude: Sequence[int] = ()) -> list[WorkspaceEvent]:
    """Lock the oldest rows that no other relay has locked, until the end of the caller's transaction.

    Skips the IDs in `exclude`: events that could not be delivered must not block the others.
    """
    cursor = conn.cursor(row_factory=class_row(WorkspaceEvent))
    await cursor.execute(
        """
        SELECT event_id, workspace_id, generation, kind, occurred_at, detail FROM workspace_outbox
        WHERE event_id <> ALL(%s)
        ORDER BY event_id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        [list(exclude), limit],
    )
    return await cursor.fetchall()


async def delete(conn: Connection, event_ids: Sequence[int]) -> None:
    """Delete events that were delivered."""
    await conn.execute("DELETE FROM workspace_outbox WHERE event_id = ANY(%s)", [list(event_ids)])
