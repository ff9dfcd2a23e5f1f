"""Data volumes: the CreateVolume request, its result, and the instance that the volume may be attached to.

A row is written before the call that it stands for.
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
    """The last CreateVolume call that may have had an effect; None if there was none."""
    volume_id: str | None
    attached_instance_id: str | None
    """The instance that the volume is or may be attached to."""
    snapshot_failures: int
    """Consecutive CreateSnapshot calls that EC2 rejected."""
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
    """Store the request, or read the stored one: a retry sends the same request in the same zone."""
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
    """Mark that CreateVolume is about to be called. Returns the mark for `forget_request`."""
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
    """Delete the request: its only call certainly had no effect. The next one may use another zone."""
    await conn.execute(
        "DELETE FROM volumes WHERE workspace_id = %s AND requested_at = %s AND volume_id IS NULL",
        [workspace_id, mark],
    )


async def record_created(
    conn: Connection, workspace_id: str, *, volume_id: str, zone: str, created_at: datetime
) -> None:
    """Store the created volume, with the zone that EC2 reports."""
    await conn.execute(
        """
        UPDATE volumes SET volume_id = %s, zone = %s, created_at = %s
        WHERE workspace_id = %s AND volume_id IS NULL
        """,
        [volume_id, zone, created_at, workspace_id],
    )


async def age(conn: Connection, workspace_id: str) -> timedelta | None:
    """Time since the volume was created or, if unknown, since the CreateVolume call; None without one."""
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
    """Mark that AttachVolume is about to be called."""
    await conn.execute(
        "UPDATE volumes SET attached_instance_id = %s, attached_generation = %s WHERE workspace_id = %s",
        [instance_id, generation, workspace_id],
    )


async def mark_detached(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Clear the attachment, unless a newer generation has marked one since."""
    await conn.execute(
        """
        UPDATE volumes SET attached_instance_id = NULL, attached_generation = NULL
        WHERE workspace_id = %s AND attached_generation <= %s
        """,
        [workspace_id, generation],
    )


async def mark_deleted(conn: Connection, workspace_id: str) -> None:
    """Mark the volume as deleted. The row stays, like that of the workspace."""
    await conn.execute(
        """
        UPDATE volumes SET deleted_at = now(), attached_instance_id = NULL, attached_generation = NULL
        WHERE workspace_id = %s AND deleted_at IS NULL
        """,
        [workspace_id],
    )
