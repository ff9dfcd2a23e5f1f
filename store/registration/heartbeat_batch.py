"""Records many heartbeats with one statement, if each only updates the row of a healthy box.

All other heartbeats are left to `heartbeats.record`: first ones, first uses of a token, and rejected ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.numeric import Int4, Int8

from store.db.pool import Connection
from store.registration.caller_lookup import CallerRecord
from store.registration.heartbeats import Heartbeat
from workflows.workspace.enums import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatInput:
    """A heartbeat with its credentials; the same arguments as those of `heartbeats.record`."""

    workspace_id: str
    sha256: bytes
    secret_generation: int | None
    heartbeat: Heartbeat


# Mirrors the authorization of `heartbeats.record`, except retiring tokens (they could make a workspace match
# twice). `SKIP LOCKED`: a workspace that is being recreated is left to the single-row statement, which also
# avoids deadlocks. Locking re-checks rows that changed since the snapshot, such as revoked tokens. The latest
# heartbeat of a workspace wins. `SELECT` of each array hides its length from the planner: one generic plan.
_RECORD_BATCH = """
WITH given AS (
    SELECT * FROM unnest(
        (SELECT %(workspace_id)b::text[]),
        (SELECT %(sha256)b::bytea[]),
        (SELECT %(secret_generation)b::bigint[]),
        (SELECT %(active_tasks)b::int[]),
        (SELECT %(is_busy)b::boolean[]),
        (SELECT %(runtime_state)b::text[]),
        (SELECT %(error_rate)b::float8[]),
        (SELECT %(sample_error)b::text[]),
        (SELECT %(current_task)b::text[]),
        (SELECT %(uptime_seconds)b::bigint[])
    ) WITH ORDINALITY AS given (
        workspace_id, sha256, secret_generation, active_tasks, is_busy, runtime_state, error_rate,
        sample_error, current_task, uptime_seconds, number)
), plain AS (
    SELECT given.*, t.token_id, t.generation, t.prefix, w.generation AS newest, g.private_ip
    FROM given
    JOIN tokens t ON t.sha256 = given.sha256 AND t.workspace_id = given.workspace_id AND t.state = 'active'
    JOIN generations g ON g.workspace_id = t.workspace_id AND g.generation = t.generation
                      AND g.superseded_at IS NULL
    JOIN workspaces w ON w.workspace_id = t.workspace_id AND w.intent = 'run' AND w.deleted_at IS NULL
    JOIN heartbeats b ON b.workspace_id = t.workspace_id AND b.generation = t.generation
                AND b.last_heartbeat_at IS NOT NULL AND b.stale_since IS NULL AND b.credential_lost_at IS NULL
    WHERE COALESCE(given.secret_generation, t.generation) = t.generation
    FOR NO KEY UPDATE OF t, b SKIP LOCKED
), used AS (
    UPDATE tokens t SET last_used_at = now() FROM plain WHERE t.token_id = plain.token_id
), latest AS (
    SELECT DISTINCT ON (workspace_id) * FROM plain ORDER BY workspace_id, number DESC
), noted AS (
    UPDATE heartbeats b
    SET last_heartbeat_at = now(), unauthenticated_count = 0, active_tasks = latest.active_tasks,
        is_busy = latest.is_busy, runtime_state = latest.runtime_state, error_rate = latest.error_rate,
        sample_error = latest.sample_error, current_task = latest.current_task,
        uptime_seconds = latest.uptime_seconds
    FROM latest WHERE b.workspace_id = latest.workspace_id
)
SELECT number, newest, generation, private_ip, token_id, prefix FROM plain
"""


async def record_batch(conn: Connection, heartbeats: Sequence[HeartbeatInput]) -> list[CallerRecord | None]:
    """The caller of each heartbeat that was recorded; None for each that was not."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(_RECORD_BATCH, _columns(heartbeats), prepare=True)
    found: list[CallerRecord | None] = [None] * len(heartbeats)
    for number, newest, generation, private_ip, token_id, prefix in await cursor.fetchall():
        found[number - 1] = CallerRecord(
            intent=Intent.RUN,
            deleted=False,
            newest=newest,
            current=generation,
            private_ip=private_ip,
            token_id=token_id,
            token_generation=generation,
            token_state="active",  # noqa: S106 - a state, not a credential
            token_prefix=prefix,
        )
    return found


def _columns(heartbeats: Sequence[HeartbeatInput]) -> dict[str, list[object]]:
    # Binary parameters and integers of fixed size: all batches have the same types and share a prepared
    # statement, except those with a column that is NULL in every row.
    return {
        "workspace_id": [each.workspace_id for each in heartbeats],
        "sha256": [each.sha256 for each in heartbeats],
        "secret_generation": [_int8(each.secret_generation) for each in heartbeats],
        "active_tasks": [Int4(each.heartbeat.active_tasks) for each in heartbeats],
        "is_busy": [each.heartbeat.is_busy for each in heartbeats],
        "runtime_state": [each.heartbeat.runtime_state for each in heartbeats],
        "error_rate": [each.heartbeat.error_rate for each in heartbeats],
        "sample_error": [each.heartbeat.sample_error for each in heartbeats],
        "current_task": [each.heartbeat.current_task for each in heartbeats],
        "uptime_seconds": [Int8(each.heartbeat.uptime_seconds) for each in heartbeats],
    }


def _int8(number: int | None) -> Int8 | None:
    return None if number is None else Int8(number)
