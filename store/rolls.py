"""Fleet rolls: their members, what the record says of all of them at once, and the image they are given.

Every statement may run twice. Whose turn it is, and what the rows amount to, is decided elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg.rows import class_row, scalar_row

from store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A member as its record stands."""

    workspace_id: str
    intent: str
    deleted: bool
    generation: int
    phase: str
    available: bool
    """Online by the record, beating, and nothing speaks against it (invariant I9)."""
    image_id: str | None
    """Of the newest generation."""
    error: str | None
    error_phase: str | None
    error_generation: int | None


_STANDING = """
SELECT w.workspace_id, w.intent, w.deleted_at IS NOT NULL AS deleted, w.generation, w.phase,
       coalesce(w.phase = 'online' AND w.intent = 'run' AND w.deleted_at IS NULL
                AND g.superseded_at IS NULL AND g.not_processing_since IS NULL
                AND b.silent_since IS NULL AND b.credential_lost_at IS NULL
                AND b.last_beat_at > now() - %(fresh)s::interval, false) AS available,
       g.spec ->> 'image_id' AS image_id,
       (w.last_error ->> 'code') || ': ' || (w.last_error ->> 'message') AS error,
       w.last_error ->> 'phase' AS error_phase,
       (w.last_error ->> 'generation')::integer AS error_generation
FROM workspaces w
LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.generation = w.generation
LEFT JOIN beats b ON b.workspace_id = w.workspace_id AND b.generation = w.generation
WHERE w.workspace_id = ANY(coalesce((SELECT workspaces FROM rolls WHERE roll = %(roll)s),
                                    ARRAY[%(workspace_id)s::text]))
"""


async def all_workspaces(conn: Connection) -> list[str]:
    """Every workspace that is not deleted, nor meant to be."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT workspace_id FROM workspaces WHERE deleted_at IS NULL AND intent <> 'delete'"
        " ORDER BY workspace_id"
    )
    return await cursor.fetchall()


async def known(conn: Connection, workspaces: Sequence[str]) -> set[str]:
    """Those of them that have a record, and are not deleted."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        "SELECT workspace_id FROM workspaces WHERE workspace_id = ANY(%s)"
        " AND deleted_at IS NULL AND intent <> 'delete'",
        [list(workspaces)],
    )
    return set(await cursor.fetchall())


async def write_plan(
    conn: Connection,
    roll: str,
    *,
    requested_by: str,
    reason: str,
    image_id: str | None,
    workspaces: Sequence[str],
) -> list[str]:
    """Write the members down, and return them; written before, they are what they were."""
    await conn.execute(
        "INSERT INTO rolls (roll, requested_by, reason, image_id, workspaces) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (roll) DO NOTHING",
        [roll, requested_by, reason, image_id, list(workspaces)],
    )
    planned = await members(conn, roll)
    if planned is None:
        raise LookupError(f"roll {roll} was written a moment ago")
    return planned


async def members(conn: Connection, roll: str) -> list[str] | None:
    """The members of a roll; None if it has no plan."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT workspaces FROM rolls WHERE roll = %s", [roll])
    return await cursor.fetchone()


async def standings(conn: Connection, roll: str, *, beat_fresh_for: timedelta) -> list[Standing]:
    """All members of a roll, in one query."""
    cursor = conn.cursor(row_factory=class_row(Standing))
    await cursor.execute(_STANDING, {"roll": roll, "workspace_id": None, "fresh": beat_fresh_for})
    return await cursor.fetchall()


async def standing(conn: Connection, workspace_id: str, *, beat_fresh_for: timedelta) -> Standing | None:
    """One workspace."""
    cursor = conn.cursor(row_factory=class_row(Standing))
    await cursor.execute(_STANDING, {"roll": None, "workspace_id": workspace_id, "fresh": beat_fresh_for})
    return await cursor.fetchone()


async def give_image(conn: Connection, workspace_id: str, *, roll: str, image_id: str) -> bool:
    """Have its next generations launched from that image; False if a later roll gave it another."""
    cursor = await conn.execute(
        """
        UPDATE workspaces w SET rolled_image_id = %(image_id)s, rolled_by = r.number, updated_at = now()
        FROM rolls r
        WHERE r.roll = %(roll)s AND w.workspace_id = %(workspace_id)s
          AND w.deleted_at IS NULL AND coalesce(w.rolled_by, 0) <= r.number
        """,
        {"workspace_id": workspace_id, "roll": roll, "image_id": image_id},
    )
    return cursor.rowcount > 0


async def was_asked(conn: Connection, workspace_id: str, request_id: str) -> bool:
    """Whether the outcome of that request stands already."""
    cursor = await conn.execute(
        "SELECT FROM requests WHERE workspace_id = %s AND request_id = %s", [workspace_id, request_id]
    )
    return await cursor.fetchone() is not None
