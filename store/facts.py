"""The outbox of transitions: taken in order, deleted once the workflows have them.

Whoever changes a box's row inserts the fact in the same transaction; sending is another's matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One transition of a generation's box."""

    fact_id: int
    workspace_id: str
    generation: int
    kind: str
    at: datetime
    detail: str


async def take(conn: Connection, limit: int, *, but: Sequence[int] = ()) -> list[Fact]:
    """The oldest facts that no other relay holds, held to the end of the caller's transaction.

    `but` are the IDs of facts to leave out: those that were refused just now must not stop the others.
    """
    cursor = conn.cursor(row_factory=class_row(Fact))
    await cursor.execute(
        """
        SELECT fact_id, workspace_id, generation, kind, at, detail FROM facts
        WHERE fact_id <> ALL(%s)
        ORDER BY fact_id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        [list(but), limit],
    )
    return await cursor.fetchall()


async def delete(conn: Connection, fact_ids: Sequence[int]) -> None:
    """The workflows have them."""
    await conn.execute("DELETE FROM facts WHERE fact_id = ANY(%s)", [list(fact_ids)])
