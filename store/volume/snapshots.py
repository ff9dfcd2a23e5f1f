"""Snapshots of data volumes: which were asked for, and what is known of them.

A row is written before the call that it stands for. Whether one is due is judged elsewhere.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from store.db.pool import Connection

SnapshotState = Literal["requested", "pending", "completed", "failed", "lost", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One CreateSnapshot, and what came of it."""

    key: UUID
    """On the snapshot's tags: how a call whose answer was lost is found again."""
    volume_id: str
    requested_at: datetime
    snapshot_id: str | None
    state: SnapshotState


_COLUMNS = "snapshot_key AS key, volume_id, requested_at, snapshot_id, state"


async def unfinished(conn: Connection, volume_id: str) -> Snapshot | None:
    """The one that is under way, or may be; the database allows no second one."""
    cursor = conn.cursor(row_factory=class_row(Snapshot))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM snapshots WHERE volume_id = %s AND state IN ('requested', 'pending')",  # noqa: S608
        [volume_id],
    )
    return await cursor.fetchone()


async def newest_requested_at(conn: Connection, volume_id: str) -> datetime | None:
    """When the newest was asked for that exists, existed or may exist."""
    cursor = await conn.execute(
        "SELECT max(requested_at) FROM snapshots WHERE volume_id = %s AND state <> 'lost'", [volume_id]
    )
    row = await cursor.fetchone()
    return row[0] if row is not None else None


async def database_time(conn: Connection) -> datetime:
    """The database's clock, which all times above are of."""
    cursor = await conn.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("the database has no clock")
    now: datetime = row[0]
    return now


async def begin(conn: Connection, workspace_id: str, *, volume_id: str, generation: int) -> UUID:
    """CreateSnapshot is about to be called; raises if one is under way."""
    cursor = await conn.execute(
        """
        INSERT INTO snapshots (workspace_id, volume_id, generation) VALUES (%s, %s, %s)
        RETURNING snapshot_key
        """,
        [workspace_id, volume_id, generation],
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("the snapshot was not stored")
    key: UUID = row[0]
    return key


async def record_state(
    conn: Connection, key: UUID, *, state: SnapshotState, snapshot_id: str | None = None
) -> None:
    """What EC2 says of it; what has ended stays as it is."""
    await conn.execute(
        """
        UPDATE snapshots SET state = %s, snapshot_id = coalesce(snapshot_id, %s)
        WHERE snapshot_key = %s AND state IN ('requested', 'pending')
        """,
        [state, snapshot_id, key],
    )


async def reset_failures(conn: Connection, workspace_id: str) -> None:
    """EC2 took one: snapshot_failures count anew."""
    await conn.execute(
        "UPDATE volumes SET snapshot_failures = 0, last_failed_at = NULL WHERE workspace_id = %s",
        [workspace_id],
    )


async def record_failure(conn: Connection, workspace_id: str) -> None:
    """EC2 refused one."""
    await conn.execute(
        "UPDATE volumes SET snapshot_failures = snapshot_failures + 1, last_failed_at ="
        " clock_timestamp() WHERE workspace_id = %s",
        [workspace_id],
    )


async def existing(conn: Connection, workspace_id: str) -> list[Snapshot]:
    """All that exist, or may exist."""
    cursor = conn.cursor(row_factory=class_row(Snapshot))
    await cursor.execute(
        f"""
        SELECT {_COLUMNS} FROM snapshots
        WHERE workspace_id = %s AND state NOT IN ('lost', 'deleted') ORDER BY requested_at
        """,  # noqa: S608 - the columns are a constant
        [workspace_id],
    )
    return await cursor.fetchall()


async def mark_deleted(conn: Connection, key: UUID) -> None:
    """It is gone."""
    await conn.execute(
        """
        UPDATE snapshots SET state = CASE WHEN snapshot_id IS NULL THEN 'lost' ELSE 'deleted' END
        WHERE snapshot_key = %s
        """,
        [key],
    )
