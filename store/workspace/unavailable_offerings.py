"""Instance types and zones in which EC2 had no room, remembered for all workspaces.

Which error says so is decided elsewhere.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableOffering:
    """A type and zone that isn't asked for now."""

    code: str
    """EC2's own, when it was last asked."""
    expires_at: datetime


async def mark_unavailable(
    conn: Connection, *, instance_type: str, subnet_id: str | None, code: str, ttl: timedelta
) -> None:
    """EC2 has no room there."""
    await conn.execute(
        """
        INSERT INTO unavailable_offerings (instance_type, subnet_id, code, expires_at) VALUES (%s, %s, %s,
        now() + %s)
        ON CONFLICT (instance_type, subnet_id) DO UPDATE SET code = excluded.code, expires_at =
        excluded.expires_at
        """,
        [instance_type, subnet_id or "", code, ttl],
    )


async def find_unavailable(
    conn: Connection, *, instance_type: str, subnet_id: str | None
) -> UnavailableOffering | None:
    """Why it isn't worth asking there now; None if it is."""
    cursor = conn.cursor(row_factory=class_row(UnavailableOffering))
    await cursor.execute(
        "SELECT code, expires_at FROM unavailable_offerings WHERE (instance_type, subnet_id) = (%s,"
        " %s) AND expires_at > now()",
        [instance_type, subnet_id or ""],
    )
    return await cursor.fetchone()
