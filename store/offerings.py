"""Instance types and zones in which EC2 had no room, remembered for all workspaces.

Which error says so is decided elsewhere.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """A type and zone that isn't asked for now."""

    code: str
    """EC2's own, when it was last asked."""
    until: datetime


async def remember(
    conn: Connection, *, instance_type: str, subnet_id: str | None, code: str, lasts: timedelta
) -> None:
    """EC2 has no room there."""
    await conn.execute(
        """
        INSERT INTO bad_offerings (instance_type, subnet_id, code, until) VALUES (%s, %s, %s, now() + %s)
        ON CONFLICT (instance_type, subnet_id) DO UPDATE SET code = excluded.code, until = excluded.until
        """,
        [instance_type, subnet_id or "", code, lasts],
    )


async def recall(conn: Connection, *, instance_type: str, subnet_id: str | None) -> Bad | None:
    """Why it isn't worth asking there now; None if it is."""
    cursor = conn.cursor(row_factory=class_row(Bad))
    await cursor.execute(
        "SELECT code, until FROM bad_offerings WHERE (instance_type, subnet_id) = (%s, %s) AND until > now()",
        [instance_type, subnet_id or ""],
    )
    return await cursor.fetchone()
