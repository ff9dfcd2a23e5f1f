"""The outbox of transitions: taken in order, deleted once the workflows have them.

Whoever changes a box's row inserts the fact in the same transaction; sending is another's matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceEvent:
    """One transition of a generation's box."""

    event_id: int
    workspace_id: str
    generation: int
    kind: str
    occurred_at: datetime
    detail: str


async def claim_workspace_events(
    conn: Connection, limit: int, *, exclude: Sequence[int] = ()
) -> list[WorkspaceEvent]:
    """The oldest facts that no other relay holds, held to the end of the caller's transaction.

    `exclude` are the IDs of facts to leave out: those that were refused just now must not stop the others.
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


async def delete_workspace_events(conn: Connection, event_ids: Sequence[int]) -> None:
    """The workflows have them."""
    await conn.execute("DELETE FROM workspace_outbox WHERE event_id = ANY(%s)", [list(event_ids)])
