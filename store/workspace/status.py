"""The status on the workspace's record, and the outcomes of requests.

A status with an older revision never replaces a newer one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.db.pool import Connection
from store.workspace.generations import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The status of a workspace, as its workflow writes it."""

    generation: int
    revision: int
    phase: str
    last_error: Json | None
    conditions: list[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRow:
    """A request and its outcome."""

    request_id: str
    kind: str
    requested_by: str
    reason: str
    observed_generation: int | None
    force: bool
    decided_at: datetime
    outcome: str
    generation: int
    detail: str
    retry_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordVersion:
    """Generation and revision of the record."""

    generation: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CameOnline:
    """When a generation was requested and became `online`. Returned once per generation."""

    requested_at: datetime
    """The time of the request; the time of opening if there was no request."""
    online_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceptedRecreate:
    """An accepted recreate and its requester."""

    decided_at: datetime
    requested_by: str


async def write_status(conn: Connection, workspace_id: str, status: Status) -> None:
    """Write the status unless the stored revision or generation is newer."""
    await conn.execute(
        """
        UPDATE workspaces
        SET revision = %(revision)s, phase = %(phase)s, last_error = %(last_error)s,
            conditions = %(conditions)s, updated_at = now(),
            deleted_at = CASE WHEN %(phase)s = 'deleted' THEN coalesce(deleted_at, now()) ELSE deleted_at END
        WHERE workspace_id = %(workspace_id)s AND revision < %(revision)s AND generation <= %(generation)s
        """,
        {
            "workspace_id": workspace_id,
            "generation": status.generation,
            "revision": status.revision,
            "phase": status.phase,
            "last_error": None if status.last_error is None else Jsonb(status.last_error),
            "conditions": Jsonb(status.conditions),
        },
    )


async def read_version(conn: Connection, workspace_id: str) -> RecordVersion | None:
    """Generation and revision of the record; None if the workspace does not exist."""
    cursor = conn.cursor(row_factory=class_row(RecordVersion))
    await cursor.execute(
        "SELECT generation, revision FROM workspaces WHERE workspace_id = %s", [workspace_id]
    )
    return await cursor.fetchone()


async def mark_online(conn: Connection, workspace_id: str, *, generation: int) -> CameOnline | None:
    """Mark the current generation as online. None if it was marked before."""
    cursor = conn.cursor(row_factory=class_row(CameOnline))
    await cursor.execute(
        """
        UPDATE generations g SET online_at = now()
        WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
          AND superseded_at IS NULL AND online_at IS NULL
        RETURNING online_at,
                  coalesce((SELECT min(decided_at) FROM requests r
                            WHERE r.workspace_id = g.workspace_id AND r.generation = g.generation
                              AND r.outcome = 'accepted' AND r.kind IN ('recreate', 'start')),
                           opened_at) AS requested_at
        """,
        {"workspace_id": workspace_id, "generation": generation},
    )
    return await cursor.fetchone()


async def newest_requests(conn: Connection, workspace_id: str, *, limit: int) -> list[RequestRow]:
    """The `limit` newest outcomes, oldest first."""
    cursor = conn.cursor(row_factory=class_row(RequestRow))
    await cursor.execute(
        """
        SELECT request_id, kind, requested_by, reason, observed_generation, force, decided_at, outcome,
               generation, detail, retry_at
        FROM requests WHERE workspace_id = %s ORDER BY decided_at DESC LIMIT %s
        """,
        [workspace_id, limit],
    )
    return (await cursor.fetchall())[::-1]


async def add_requests(conn: Connection, workspace_id: str, requests: Iterable[RequestRow]) -> frozenset[str]:
    """Insert outcomes and return the IDs of new ones. A stored outcome never changes."""
    rows = [
        [
            workspace_id,
            request.request_id,
            request.kind,
            request.requested_by,
            request.reason,
            request.observed_generation,
            request.force,
            request.decided_at,
            request.outcome,
            request.generation,
            request.detail,
            request.retry_at,
        ]
        for request in requests
    ]
    added = set[str]()
    if rows:
        cursor = conn.cursor()
        await cursor.executemany(
            """
            INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, observed_generation,
                                  force, decided_at, outcome, generation, detail, retry_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (workspace_id, request_id) DO NOTHING
            RETURNING request_id
            """,
            rows,
            returning=True,
        )
        async for result in cursor.results():
            added.update(row[0] for row in await result.fetchall())
    return frozenset(added)


async def accepted_recreates(
    conn: Connection, workspace_id: str, *, within: timedelta
) -> list[AcceptedRecreate]:
    """The recreates that were accepted within this time, oldest first."""
    cursor = conn.cursor(row_factory=class_row(AcceptedRecreate))
    await cursor.execute(
        """
        SELECT decided_at, requested_by FROM requests
        WHERE workspace_id = %s AND kind = 'recreate' AND outcome = 'accepted'
          AND decided_at > now() - %s::interval
        ORDER BY decided_at
        """,
        [workspace_id, within],
    )
    return await cursor.fetchall()
