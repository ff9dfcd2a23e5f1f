"""Data volumes: what was asked of EC2, what came of it, and which box may have the volume now.

A row is written before the call that it stands for. It calls nothing and judges nothing.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.db.pool import Connection
from store.workspace.generations import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """The data volume of a workspace, or the call that may have created it."""

    workspace_id: str
    client_token: str
    request: Json
    zone: str
    requested_at: datetime | None
    """The last CreateVolume that may have had an effect; None: none was made before."""
    volume_id: str | None
    attached_instance_id: str | None
    """The instance that it is, or may be, attached to."""
    snapshot_failures: int
    """Of snapshots, in a row."""
    last_failed_at: datetime | None


_COLUMNS = (
    "workspace_id, client_token, request, zone, requested_at, volume_id,"
    " attached_instance_id, snapshot_failures, last_failed_at"
)


async def read(conn: Connection, workspace_id: str) -> Volume | None:
    """The volume of a workspace, unless it was deleted."""
    cursor = conn.cursor(row_factory=class_row(Volume))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM volumes WHERE workspace_id = %s AND deleted_at IS NULL",  # noqa: S608
        [workspace_id],
    )
    return await cursor.fetchone()


async def prepare(
    conn: Connection, workspace_id: str, *, client_token: str, request: Json, zone: str
) -> Volume:
    """Store the request, or get the one that stands: a retry sends the same, in the same zone."""
    await conn.execute(
        """
        INSERT INTO volumes (workspace_id, client_token, request, zone) VALUES (%s, %s, %s, %s)
        ON CONFLICT (workspace_id) DO NOTHING
        """,
        [workspace_id, client_token, Jsonb(request), zone],
    )
    volume = await read(conn, workspace_id)
    if volume is None:
        raise LookupError(f"the data volume of {workspace_id} was deleted")
    return volume


async def mark_requested(conn: Connection, workspace_id: str) -> datetime:
    """Say that CreateVolume is about to be called; returns the mark that `forget` takes."""
    cursor = await conn.execute(
        "UPDATE volumes SET requested_at = clock_timestamp() WHERE workspace_id = %s RETURNING requested_at",
        [workspace_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"the data volume of {workspace_id} was not stored")
    requested_at: datetime = row[0]
    return requested_at


async def forget_request(conn: Connection, workspace_id: str, *, mark: datetime) -> None:
    """The only call had no effect for certain: the next one may be made in another zone."""
    await conn.execute(
        "DELETE FROM volumes WHERE workspace_id = %s AND requested_at = %s AND volume_id IS NULL",
        [workspace_id, mark],
    )


async def record_created(
    conn: Connection, workspace_id: str, *, volume_id: str, zone: str, created_at: datetime
) -> None:
    """The volume exists; where it is, EC2 knows better than the request."""
    await conn.execute(
        """
        UPDATE volumes SET volume_id = %s, zone = %s, created_at = %s
        WHERE workspace_id = %s AND volume_id IS NULL
        """,
        [volume_id, zone, created_at, workspace_id],
    )


async def age(conn: Connection, workspace_id: str) -> timedelta | None:
    """How long ago it was created or, if that is not known, the call for it made; None if none was."""
    cursor = await conn.execute(
        "SELECT now() - coalesce(created_at, requested_at) FROM volumes WHERE workspace_id = %s",
        [workspace_id],
    )
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    passed: timedelta = row[0]
    return passed


async def mark_attaching(conn: Connection, workspace_id: str, *, instance_id: str, generation: int) -> None:
    """AttachVolume is about to be called."""
    await conn.execute(
        "UPDATE volumes SET attached_instance_id = %s, attached_generation = %s WHERE workspace_id = %s",
        [instance_id, generation, workspace_id],
    )


async def mark_detached(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """EC2 has it as available. What a newer generation has marked meanwhile stays."""
    await conn.execute(
        """
        UPDATE volumes SET attached_instance_id = NULL, attached_generation = NULL
        WHERE workspace_id = %s AND attached_generation <= %s
        """,
        [workspace_id, generation],
    )


async def mark_deleted(conn: Connection, workspace_id: str) -> None:
    """It is gone; the row stays, as its workspace's does."""
    await conn.execute(
        """
        UPDATE volumes SET deleted_at = now(), attached_instance_id = NULL, attached_generation = NULL
        WHERE workspace_id = %s AND deleted_at IS NULL
        """,
        [workspace_id],
    )
