"""Launches: the RunInstances request of each attempt, its result, and whether its instance is terminated.

A row is written before the call that it stands for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.db.pool import Connection
from store.workspace import generations
from store.workspace.generations import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One attempt of one generation."""

    workspace_id: str
    generation: int
    attempt: int
    client_token: str
    request: Json
    user_data: str
    """The template. The bootstrap secret is filled in when the request is sent."""
    prepared_at: datetime
    requested_at: datetime | None
    """The last RunInstances call that may have had an effect."""
    instance_id: str | None
    private_ip: str | None
    capacity_error: str | None

    @property
    def key(self) -> str:
        """The name of the launch in fencing: its instance ID, or a key if that is unknown."""
        return self.instance_id or f"launch-{self.generation}-{self.attempt}"

    @property
    def number(self) -> tuple[int, int]:
        """Generation and attempt. They order launches."""
        return self.generation, self.attempt

    @property
    def launched_at(self) -> datetime:
        """The latest time at which its instance may have been launched."""
        return self.requested_at or self.prepared_at


_COLUMNS = """workspace_id, generation, attempt, client_token, request, user_data, prepared_at, requested_at,
              instance_id, host(private_ip) AS private_ip, capacity_error"""


async def prepare(
    conn: Connection,
    workspace_id: str,
    *,
    generation: int,
    attempt: int,
    client_token: str,
    request: Json,
    user_data: str,
) -> Launch:
    """Store the launch request, or read the stored one: a retry sends the same bytes.

    The caller has locked the generation, so there is no concurrent insert.
    """
    cursor = conn.cursor(row_factory=class_row(Launch))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM launches WHERE (workspace_id, generation, attempt) = (%s, %s, %s)",  # noqa: S608
        [workspace_id, generation, attempt],
    )
    existing = await cursor.fetchone()
    if existing is not None:
        return existing
    await cursor.execute(
        f"""
        INSERT INTO launches (workspace_id, generation, attempt, client_token, request, user_data)
        VALUES (%s, %s, %s, %s, %s, %s) RETURNING {_COLUMNS}
        """,  # noqa: S608 - the columns are a constant
        [workspace_id, generation, attempt, client_token, Jsonb(request), user_data],
    )
    stored = await cursor.fetchone()
    if stored is None:
        raise LookupError(f"launch {workspace_id}/{generation}/{attempt} was not stored")
    return stored


async def newest_attempt(conn: Connection, workspace_id: str, generation: int) -> int:
    """The newest attempt of the generation; 0 if there is none."""
    cursor = await conn.execute(
        "SELECT coalesce(max(attempt), 0) FROM launches WHERE workspace_id = %s AND generation = %s",
        [workspace_id, generation],
    )
    row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


async def mark_requested(conn: Connection, launch: Launch) -> datetime:
    """Mark that RunInstances is about to be called. Returns the mark for `unmark_requested`."""
    cursor = await conn.execute(
        """
        UPDATE launches SET requested_at = clock_timestamp()
        WHERE (workspace_id, generation, attempt) = (%s, %s, %s) RETURNING requested_at
        """,
        [launch.workspace_id, *launch.number],
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"launch {launch.key} was not stored")
    requested_at: datetime = row[0]
    return requested_at


async def unmark_requested(conn: Connection, launch: Launch, *, mark: datetime) -> None:
    """Remove the mark of a call that certainly had no effect. A newer mark stays."""
    await conn.execute(
        """
        UPDATE launches SET requested_at = NULL
        WHERE (workspace_id, generation, attempt) = (%s, %s, %s) AND requested_at = %s AND instance_id IS NULL
        """,
        [launch.workspace_id, *launch.number, mark],
    )


async def record_capacity_error(conn: Connection, launch: Launch, *, code: str) -> None:
    """Record a capacity error: the attempt has no instance and is not sent again."""
    await conn.execute(
        """
        UPDATE launches SET capacity_error = %s
        WHERE (workspace_id, generation, attempt) = (%s, %s, %s) AND instance_id IS NULL
        """,
        [code, launch.workspace_id, *launch.number],
    )


async def record_instance(
    conn: Connection,
    workspace_id: str,
    *,
    generation: int,
    attempt: int,
    instance_id: str,
    private_ip: str | None,
) -> bool:
    """Store the instance of a launch, and store it as the box if the generation is current.

    Returns False if the generation is superseded or has a newer attempt.
    """
    opened = await generations.lock_current(conn, workspace_id, generation)
    if opened is not None and (opened.instance_id, opened.private_ip) == (instance_id, private_ip):
        # This launch wrote both: an instance belongs to one attempt.
        return await newest_attempt(conn, workspace_id, generation) <= attempt
    values = {
        "workspace_id": workspace_id,
        "generation": generation,
        "attempt": attempt,
        "instance_id": instance_id,
        "private_ip": private_ip,
    }
    await conn.execute(
        """
        UPDATE launches SET instance_id = %(instance_id)s, private_ip = coalesce(%(private_ip)s, private_ip),
                            capacity_error = NULL
        WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s AND attempt = %(attempt)s
        """,
        values,
    )
    cursor = await conn.execute(
        """
        UPDATE generations
        SET instance_id = %(instance_id)s,
            private_ip = CASE WHEN instance_id = %(instance_id)s
                              THEN coalesce(%(private_ip)s, private_ip) ELSE %(private_ip)s END
        WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s AND superseded_at IS NULL
          AND NOT EXISTS (SELECT FROM launches l WHERE l.workspace_id = %(workspace_id)s
                          AND l.generation = %(generation)s AND l.attempt > %(attempt)s)
        """,
        values,
    )
    return cursor.rowcount == 1


async def list_unterminated(conn: Connection, workspace_id: str) -> list[Launch]:
    """Launches with an instance, known or possible, that is not confirmed as terminated. Oldest first."""
    cursor = conn.cursor(row_factory=class_row(Launch))
    await cursor.execute(
        f"""
        SELECT {_COLUMNS} FROM launches WHERE workspace_id = %s AND terminated_at IS NULL
          AND (instance_id IS NOT NULL OR (requested_at IS NOT NULL AND capacity_error IS NULL))
        ORDER BY generation, attempt
        """,  # noqa: S608 - the columns are a constant
        [workspace_id],
    )
    return await cursor.fetchall()


async def age(conn: Connection, workspace_id: str, *, generation: int, attempt: int) -> timedelta | None:
    """Time since the last RunInstances call or, without one, since it was prepared; None if unknown."""
    cursor = await conn.execute(
        """
        SELECT now() - coalesce(requested_at, prepared_at) FROM launches
        WHERE (workspace_id, generation, attempt) = (%s, %s, %s)
        """,
        [workspace_id, generation, attempt],
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    passed: timedelta = row[0]
    return passed


async def instances_of_generation(conn: Connection, workspace_id: str, generation: int) -> frozenset[str]:
    """All recorded instances of a generation, in any state."""
    cursor = await conn.execute(
        """
        SELECT instance_id FROM launches
        WHERE workspace_id = %s AND generation = %s AND instance_id IS NOT NULL
        """,
        [workspace_id, generation],
    )
    return frozenset(row[0] for row in await cursor.fetchall())


async def all_instances(conn: Connection, workspace_id: str) -> frozenset[str]:
    """All recorded instances of a workspace, of any generation."""
    cursor = await conn.execute(
        "SELECT instance_id FROM launches WHERE workspace_id = %s AND instance_id IS NOT NULL", [workspace_id]
    )
    return frozenset(row[0] for row in await cursor.fetchall())


async def addresses(conn: Connection, workspace_id: str) -> frozenset[str]:
    """All recorded addresses of the workspace's boxes, of any generation."""
    cursor = await conn.execute(
        "SELECT host(private_ip) FROM launches WHERE workspace_id = %s AND private_ip IS NOT NULL",
        [workspace_id],
    )
    return frozenset(row[0] for row in await cursor.fetchall())


async def instance_of(conn: Connection, workspace_id: str, *, generation: int, attempt: int) -> str | None:
    """The recorded instance of a launch."""
    cursor = await conn.execute(
        "SELECT instance_id FROM launches WHERE (workspace_id, generation, attempt) = (%s, %s, %s)",
        [workspace_id, generation, attempt],
    )
    row = await cursor.fetchone()
    return row[0] if row is not None else None


async def declared_dead(conn: Connection, workspace_id: str) -> frozenset[str]:
    """The instances that an operator declared dead."""
    cursor = await conn.execute(
        """
        SELECT instance_id FROM launches
        WHERE workspace_id = %s AND declared_dead AND instance_id IS NOT NULL
        """,
        [workspace_id],
    )
    return frozenset(row[0] for row in await cursor.fetchall())


async def identify(conn: Connection, launch: Launch, *, instance_id: str) -> None:
    """Store the instance of a launch whose response was lost."""
    await conn.execute(
        """
        UPDATE launches SET instance_id = %s
        WHERE (workspace_id, generation, attempt) = (%s, %s, %s) AND instance_id IS NULL
        """,
        [instance_id, launch.workspace_id, *launch.number],
    )


async def mark_terminated(
    conn: Connection, workspace_id: str, *, keys: Sequence[str], declared_dead: bool = False
) -> list[str]:
    """Mark launches as terminated, by their keys. `declared_dead` if an operator confirmed it instead of EC2.

    Returns the keys that were not marked before.
    """
    cursor = await conn.execute(
        """
        UPDATE launches SET terminated_at = now(), declared_dead = %(declared_dead)s
        WHERE workspace_id = %(workspace_id)s AND terminated_at IS NULL
          AND coalesce(instance_id, 'launch-' || generation || '-' || attempt) = ANY(%(keys)s)
        RETURNING coalesce(instance_id, 'launch-' || generation || '-' || attempt)
        """,
        {"workspace_id": workspace_id, "keys": list(keys), "declared_dead": declared_dead},
    )
    return [row[0] for row in await cursor.fetchall()]
