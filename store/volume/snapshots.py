"""Snapshots of data volumes: one row per CreateSnapshot call, written before the call."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from store.db.pool import Connection

SnapshotState = Literal["requested", "pending", "completed", "failed", "lost", "deleted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A CreateSnapshot call and its result."""

    key: UUID
    """A tag of the snapshot: it finds the snapshot of a call whose response was lost."""
    volume_id: str
    requested_at: datetime
    snapshot_id: str | None
    state: SnapshotState


_COLUMNS = "snapshot_key AS key, volume_id, requested_at, snapshot_id, state"


async def unfinished(conn: Connection, volume_id: str) -> Snapshot | None:
    """The snapshot that is or may be in progress. The database allows only one."""
    cursor = conn.cursor(row_factory=class_row(Snapshot))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM snapshots WHERE volume_id = %s AND state IN ('requested', 'pending')",  # noqa: S608
        [volume_id],
    )
    return await cursor.fetchone()


async def newest_requested_at(conn: Connection, volume_id: str) -> datetime | None:
    """When the newest snapshot was requested that exists, existed, or may exist."""
    cursor = await conn.execute(
        "SELECT max(requested_at) FROM snapshots WHERE volume_id = %s AND state <> 'lost'", [volume_id]
    )
    row = await cursor.fetchone()
    return row[0] if row is not None else None


async def database_time(conn: Connection) -> datetime:
    """The current time of the database, which all stored times refer to."""
    cursor = await conn.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("SELECT clock_timestamp() returned no row")
    now: datetime = row[0]
    return now


async def begin(conn: Connection, workspace_id: str, *, volume_id: str, generation: int) -> UUID:
    """Insert the row of a CreateSnapshot call. Fails if a snapshot is in progress."""
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
    """Store the state that EC2 reports. Final states do not change."""
    await conn.execute(
        """
        UPDATE snapshots SET state = %s, snapshot_id = coalesce(snapshot_id, %s)
        WHERE snapshot_key = %s AND state IN ('requested', 'pending')
        """,
        [state, snapshot_id, key],
    )


async def reset_failures(conn: Connection, workspace_id: str) -> None:
    """Reset the failure count: EC2 accepted a call."""
    await conn.execute(
        "UPDATE volumes SET snapshot_failures = 0, last_failed_at = NULL WHERE workspace_id = %s",
        [workspace_id],
    )


async def record_failure(conn: Connection, workspace_id: str) -> None:
    """Count a call that EC2 rejected."""
    await conn.execute(
        "UPDATE volumes SET snapshot_failures = snapshot_failures + 1, last_failed_at = clock_timestamp()"
        " WHERE workspace_id = %s",
        [workspace_id],
    )


async def existing(conn: Connection, workspace_id: str) -> list[Snapshot]:
    """All snapshots of the workspace that exist or may exist."""
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
    """Mark the snapshot as deleted, or as lost if it never got an ID."""
    await conn.execute(
        """
        UPDATE snapshots SET state = CASE WHEN snapshot_id IS NULL THEN 'lost' ELSE 'deleted' END
        WHERE snapshot_key = %s
        """,
        [key],
    )
