"""The outbox of delegations that have to be looked at again: taken in order, deleted once it is told."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Stirring:
    """One delegation; it may be there several times."""

    stirring_id: int
    delegation_id: str


async def take(conn: Connection, limit: int, *, but: Sequence[int] = ()) -> list[Stirring]:
    """The oldest ones that no other relay holds, held to the end of the caller's transaction.

    More of them than are told at once: one word to a delegation's workflow answers all that it finds here.
    """
    cursor = conn.cursor(row_factory=class_row(Stirring))
    await cursor.execute(
        """
        SELECT stirring_id, delegation_id FROM stirrings WHERE stirring_id <> ALL(%s)
        ORDER BY stirring_id LIMIT %s FOR UPDATE SKIP LOCKED
        """,
        [list(but), limit],
    )
    return await cursor.fetchall()


async def delete(conn: Connection, stirring_ids: Sequence[int]) -> None:
    """Their workflows know."""
    await conn.execute("DELETE FROM stirrings WHERE stirring_id = ANY(%s)", [list(stirring_ids)])
