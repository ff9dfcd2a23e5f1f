"""Workspaces and their generations: enroll, open, close, and find the current generation.

All writes run in a transaction of the caller.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.db.pool import Connection
from store.delegation import delegations
from store.outbox import delegation_wakeups
from workflows.workspace.enums import Intent

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceRecord:
    """The stored state of a workspace that its workflow starts from."""

    intent: str
    deleted: bool
    generation: int
    current: bool
    """Whether that generation is not superseded."""
    revision: int
    spec: Json
    attempt: int
    """The newest launch of the generation, at least 1."""
    registered_at: datetime | None
    last_heartbeat_at: datetime | None
    """The generation's last heartbeat, if it is fresh."""
    credential_lost_at: datetime | None
    agent_unresponsive_since: datetime | None
    agent_unresponsive_reason: str | None
    opened_spec: Json | None
    """The spec that its generation was opened with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWorkspace:
    """A workspace whose row is locked, to open or close a generation."""

    intent: str
    deleted: bool
    generation: int
    current: bool
    spec: Json
    """The workspace's spec, with the image of the last rollout if it set one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentGeneration:
    """The current generation, for launches and canaries."""

    key_id: str
    spec: Json
    instance_id: str | None
    private_ip: str | None
    url: str | None


async def enroll(conn: Connection, workspace_id: str, *, spec: Json) -> None:
    """Insert the workspace or store its new spec. An empty spec never replaces a stored one."""
    # ON CONFLICT locks the row even if nothing is updated, so that later reads are consistent.
    # A spec that changes the image takes precedence over the image of the last rollout.
    await conn.execute(
        """
        INSERT INTO workspaces (workspace_id, spec) VALUES (%(workspace_id)s, %(spec)s)
        ON CONFLICT (workspace_id) DO UPDATE SET spec = excluded.spec, updated_at = now(),
            rollout_image_id = CASE
                WHEN excluded.spec ->> 'image_id' <> coalesce(workspaces.spec ->> 'image_id', '') THEN NULL
                ELSE workspaces.rollout_image_id END
        WHERE excluded.spec <> '{}' AND excluded.spec <> workspaces.spec AND workspaces.deleted_at IS NULL
        """,
        {"workspace_id": workspace_id, "spec": Jsonb(spec)},
    )


async def read(conn: Connection, workspace_id: str, *, heartbeat_fresh_for: timedelta) -> WorkspaceRecord:
    """The record of an enrolled workspace. Raises `LookupError` if it is not enrolled."""
    cursor = conn.cursor(row_factory=class_row(WorkspaceRecord))
    await cursor.execute(
        """
        SELECT w.intent, w.deleted_at IS NOT NULL AS deleted, w.generation,
               g.generation IS NOT NULL AND g.superseded_at IS NULL AS current,
               w.revision, w.spec, g.registered_at, b.last_heartbeat_at,
               (SELECT l.credential_lost_at FROM heartbeats l
                WHERE l.workspace_id = w.workspace_id AND l.generation = w.generation) AS credential_lost_at,
               g.agent_unresponsive_since, g.agent_unresponsive_reason, g.spec AS opened_spec,
               coalesce((SELECT max(l.attempt) FROM launches l
                         WHERE l.workspace_id = w.workspace_id AND l.generation = w.generation), 1) AS attempt
        FROM workspaces w
        LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.generation = w.generation
        LEFT JOIN heartbeats b ON b.workspace_id = w.workspace_id AND b.generation = w.generation
                         AND b.stale_since IS NULL AND b.last_heartbeat_at > now() - %(fresh)s::interval
        WHERE w.workspace_id = %(workspace_id)s
        """,
        {"workspace_id": workspace_id, "fresh": heartbeat_fresh_for},
    )
    row = await cursor.fetchone()
    if row is None:
        raise LookupError(f"workspace {workspace_id} is not enrolled")
    return row


async def lock(conn: Connection, workspace_id: str) -> LockedWorkspace | None:
    """Lock the workspace until the transaction ends: this serializes opening and closing."""
    # Two statements: a statement that waited for the lock still sees the old generations.
    # NO KEY: inserts that reference the row, such as requests, do not wait.
    await conn.execute("SELECT FROM workspaces WHERE workspace_id = %s FOR NO KEY UPDATE", [workspace_id])
    cursor = conn.cursor(row_factory=class_row(LockedWorkspace))
    await cursor.execute(
        """
        SELECT intent, deleted_at IS NOT NULL AS deleted, generation,
               spec || jsonb_strip_nulls(jsonb_build_object('image_id', rollout_image_id)) AS spec,
               EXISTS (SELECT FROM generations g WHERE g.workspace_id = w.workspace_id
                       AND g.generation = w.generation AND g.superseded_at IS NULL) AS current
        FROM workspaces w WHERE workspace_id = %s
        """,
        [workspace_id],
    )
    return await cursor.fetchone()


async def open_generation(
    conn: Connection, workspace_id: str, *, generation: int, key_id: str, spec: Json, phase: str
) -> None:
    """Supersede the current generation, revoke all tokens, and insert the new current generation."""
    await _supersede(conn, workspace_id)
    names = {"workspace_id": workspace_id, "generation": generation}
    await conn.execute(
        """
        INSERT INTO generations (workspace_id, generation, key_id, spec)
        VALUES (%(workspace_id)s, %(generation)s, %(key_id)s, %(spec)s)
        """,
        {**names, "key_id": key_id, "spec": Jsonb(spec)},
    )
    # Insert the row now, so that the first heartbeat is an update like all others.
    await conn.execute(
        """
        INSERT INTO heartbeats (workspace_id, generation) VALUES (%(workspace_id)s, %(generation)s)
        ON CONFLICT (workspace_id) DO UPDATE
        SET generation = excluded.generation, last_heartbeat_at = NULL, stale_since = NULL,
            unauthenticated_count = 0, credential_lost_at = NULL, active_tasks = 0, is_busy = NULL,
            runtime_state = NULL, error_rate = 0, sample_error = '', current_task = '',
            uptime_seconds = 0
        """,
        names,
    )
    await conn.execute(
        """
        UPDATE workspaces
        SET generation = %(generation)s, intent = 'run', phase = %(phase)s, updated_at = now()
        WHERE workspace_id = %(workspace_id)s
        """,
        {**names, "phase": phase},
    )


async def close(conn: Connection, workspace_id: str, *, generation: int, intent: str) -> None:
    """Store the intent, supersede the generation and revoke its tokens. A deletion also revokes API tokens.

    Generations up to `generation` cannot be opened any more, so a late attempt to open one fails.
    """
    await conn.execute(
        """
        UPDATE workspaces SET intent = %s, generation = greatest(generation, %s), updated_at = now()
        WHERE workspace_id = %s
        """,
        [intent, generation, workspace_id],
    )
    await _supersede(conn, workspace_id)
    if intent == Intent.DELETE:
        await delegation_wakeups.enqueue_outbound(conn, workspace_id)
        await conn.execute(
            "UPDATE api_tokens SET revoked_at = now() WHERE workspace_id = %s AND revoked_at IS NULL",
            [workspace_id],
        )


async def current(conn: Connection, workspace_id: str, generation: int) -> CurrentGeneration | None:
    """The generation if it is the current one."""
    cursor = conn.cursor(row_factory=class_row(CurrentGeneration))
    await cursor.execute(
        """
        SELECT key_id, spec, instance_id, host(private_ip) AS private_ip, url FROM generations
        WHERE workspace_id = %s AND generation = %s AND superseded_at IS NULL
        """,
        [workspace_id, generation],
    )
    return await cursor.fetchone()


async def lock_current(conn: Connection, workspace_id: str, generation: int) -> CurrentGeneration | None:
    """The generation if it is the current one, locked until the transaction ends."""
    # Two statements: the second one sees the changes that the first one waited for.
    await conn.execute(
        "SELECT FROM generations WHERE workspace_id = %s AND generation = %s FOR NO KEY UPDATE",
        [workspace_id, generation],
    )
    return await current(conn, workspace_id, generation)


async def write_dns_name(conn: Connection, workspace_id: str, *, generation: int, dns_name: str) -> None:
    """Store the DNS name, unless a newer generation exists."""
    await conn.execute(
        """
        UPDATE workspaces SET dns_name = %(dns_name)s, updated_at = now()
        WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
          AND dns_name IS DISTINCT FROM %(dns_name)s
        """,
        {"workspace_id": workspace_id, "generation": generation, "dns_name": dns_name},
    )


async def erase_dns_name(conn: Connection, workspace_id: str) -> None:
    """Clear the DNS name."""
    await conn.execute(
        "UPDATE workspaces SET dns_name = NULL, updated_at = now() WHERE workspace_id = %s", [workspace_id]
    )


async def _supersede(conn: Connection, workspace_id: str) -> None:
    await delegations.cancel_canaries(conn, workspace_id)
    await delegation_wakeups.enqueue_inbound(conn, workspace_id)
    await conn.execute(
        "UPDATE generations SET superseded_at = now() WHERE workspace_id = %s AND superseded_at IS NULL",
        [workspace_id],
    )
    await conn.execute(
        """
        UPDATE tokens SET state = 'revoked', revoked_at = now(), nonce = NULL
        WHERE workspace_id = %s AND state <> 'revoked'
        """,
        [workspace_id],
    )
