"""Fleet rollouts: their members, the status of all members in one query, and the image that members get.

Every statement is safe to run twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import class_row, scalar_row

from store.db.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberStatus:
    """The recorded status of a member."""

    workspace_id: str
    intent: str
    deleted: bool
    generation: int
    phase: str
    available: bool
    """Online, with fresh heartbeats and no sign of a failure (invariant I9)."""
    image_id: str | None
    """Of the newest generation."""
    error: str | None
    error_phase: str | None
    error_generation: int | None
    error_refused: bool | None


_MEMBER_STATUS = """
SELECT w.workspace_id, w.intent, w.deleted_at IS NOT NULL AS deleted, w.generation, w.phase,
       coalesce(w.phase = 'online' AND w.intent = 'run' AND w.deleted_at IS NULL
                AND g.superseded_at IS NULL AND g.agent_unresponsive_since IS NULL
                AND b.stale_since IS NULL AND b.credential_lost_at IS NULL
                AND b.last_heartbeat_at > now() - %(fresh)s::interval, false) AS available,
       g.spec ->> 'image_id' AS image_id,
       (w.last_error ->> 'code') || ': ' || (w.last_error ->> 'message') AS error,
       w.last_error ->> 'phase' AS error_phase,
       (w.last_error ->> 'generation')::integer AS error_generation,
       (w.last_error ->> 'refused')::boolean AS error_refused
FROM workspaces w
LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.generation = w.generation
LEFT JOIN heartbeats b ON b.workspace_id = w.workspace_id AND b.generation = w.generation
WHERE w.workspace_id = ANY(coalesce((SELECT workspaces FROM rollouts WHERE rollout_id = %(rollout_id)s),
                                    ARRAY[%(workspace_id)s::text]))
"""


async def all_workspaces(conn: Connection) -> list[str]:
    """All workspaces that are neither deleted nor being deleted."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT workspace_id FROM workspaces WHERE deleted_at IS NULL AND intent <> 'delete'"
        " ORDER BY workspace_id"
    )
    return await cursor.fetchall()


async def existing(conn: Connection, workspaces: Sequence[str]) -> set[str]:
    """The given workspaces that exist and are neither deleted nor being deleted."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT workspace_id FROM workspaces WHERE workspace_id = ANY(%s)"
        " AND deleted_at IS NULL AND intent <> 'delete'",
        [list(workspaces)],
    )
    return set(await cursor.fetchall())


async def write_plan(
    conn: Connection,
    rollout_id: str,
    *,
    requested_by: str,
    reason: str,
    image_id: str | None,
    workspaces: Sequence[str],
) -> list[str]:
    """Store the members and return them. Members that are stored already stay as they are."""
    await conn.execute(
        "INSERT INTO rollouts (rollout_id, requested_by, reason, image_id, workspaces)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (rollout_id) DO NOTHING",
        [rollout_id, requested_by, reason, image_id, list(workspaces)],
    )
    planned = await members(conn, rollout_id)
    if planned is None:
        raise LookupError(f"rollout {rollout_id} was not stored")
    return planned


async def members(conn: Connection, rollout_id: str) -> list[str] | None:
    """The members of a rollout; None if it has no plan."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT workspaces FROM rollouts WHERE rollout_id = %s", [rollout_id])
    return await cursor.fetchone()


async def member_statuses(
    conn: Connection, rollout_id: str, *, heartbeat_fresh_for: timedelta
) -> list[MemberStatus]:
    """The status of all members of a rollout, in one query."""
    cursor = conn.cursor(row_factory=class_row(MemberStatus))
    await cursor.execute(
        _MEMBER_STATUS, {"rollout_id": rollout_id, "workspace_id": None, "fresh": heartbeat_fresh_for}
    )
    return await cursor.fetchall()


async def member_status(
    conn: Connection, workspace_id: str, *, heartbeat_fresh_for: timedelta
) -> MemberStatus | None:
    """The status of one workspace."""
    cursor = conn.cursor(row_factory=class_row(MemberStatus))
    await cursor.execute(
        _MEMBER_STATUS, {"rollout_id": None, "workspace_id": workspace_id, "fresh": heartbeat_fresh_for}
    )
    return await cursor.fetchone()


async def set_image(conn: Connection, workspace_id: str, *, rollout_id: str, image_id: str) -> bool:
    """Set the image of the next generations. False if a later rollout has set one."""
    cursor = await conn.execute(
        """
        UPDATE workspaces w
        SET rollout_image_id = %(image_id)s, rollout_number = r.sequence, updated_at = now()
        FROM rollouts r
        WHERE r.rollout_id = %(rollout_id)s AND w.workspace_id = %(workspace_id)s
          AND w.deleted_at IS NULL AND coalesce(w.rollout_number, 0) <= r.sequence
        """,
        {"workspace_id": workspace_id, "rollout_id": rollout_id, "image_id": image_id},
    )
    return cursor.rowcount > 0


async def has_outcome(conn: Connection, workspace_id: str, request_id: str) -> bool:
    """Whether the outcome of the request is recorded."""
    cursor = await conn.execute(
        "SELECT FROM requests WHERE workspace_id = %s AND request_id = %s", [workspace_id, request_id]
    )
    return await cursor.fetchone() is not None
