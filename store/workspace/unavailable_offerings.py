"""Offerings (instance type and subnet) without capacity, shared by all workspaces."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableOffering:
    """An offering that is skipped until `expires_at`."""

    code: str
    """The EC2 error code of the last call."""
    expires_at: datetime


async def mark_unavailable(
    conn: Connection, *, instance_type: str, subnet_id: str | None, code: str, ttl: timedelta
) -> None:
    """Mark the offering as unavailable for `ttl`."""
    await conn.execute(
        """
        INSERT INTO unavailable_offerings (instance_type, subnet_id, code, expires_at)
        VALUES (%s, %s, %s, now() + %s)
        ON CONFLICT (instance_type, subnet_id) DO UPDATE
        SET code = excluded.code, expires_at = excluded.expires_at
        """,
        [instance_type, subnet_id or "", code, ttl],
    )


async def find_unavailable(
    conn: Connection, *, instance_type: str, subnet_id: str | None
) -> UnavailableOffering | None:
    """The entry of the offering if it is unavailable now, else None."""
    cursor = conn.cursor(row_factory=class_row(UnavailableOffering))
    await cursor.execute(
        "SELECT code, expires_at FROM unavailable_offerings"
        " WHERE (instance_type, subnet_id) = (%s, %s) AND expires_at > now()",
        [instance_type, subnet_id or ""],
    )
    return await cursor.fetchone()
