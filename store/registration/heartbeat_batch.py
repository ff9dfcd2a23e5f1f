"""Taking in many beats with one statement: those that leave nothing to do but to note them.

All others it leaves to `beats.take_in`, untouched: first beats, first uses of a token, whatever is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.numeric import Int4, Int8

from store.db.pool import Connection
from store.registration.caller_lookup import CallerRecord
from store.registration.heartbeats import Heartbeat
from workflows.workspace.state import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatInput:
    """A beat, and what came with it; as `beats.take_in` has them."""

    workspace_id: str
    sha256: bytes
    secret_generation: int | None
    beat: Heartbeat


# What is entitled here is entitled in `beats.take_in`, too, for the same reasons; a retiring token is not,
# so that no workspace has two rows in it. Rows that somebody else holds are skipped, not waited for: a
# recreate of one workspace doesn't hold up the beats of others, and there is no order of locks to keep.
# What was changed since the snapshot is looked at again as it is locked: a token that was revoked with its
# generation is not found any more. A workspace's later beat outweighs its earlier one, as one by one.
# The arrays are selected, so that the planner doesn't see how long they are: it would plan anew each time.
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
    SET last_heartbeat_at = now(), unauthenticated_count = 0, active_tasks = latest.active_tasks, is_busy =
    latest.is_busy,
        runtime_state = latest.runtime_state, error_rate = latest.error_rate,
        sample_error = latest.sample_error, current_task = latest.current_task,
        uptime_seconds = latest.uptime_seconds
    FROM latest WHERE b.workspace_id = latest.workspace_id
)
SELECT number, newest, generation, private_ip, token_id, prefix FROM plain
"""


async def record_batch(conn: Connection, beats: Sequence[HeartbeatInput]) -> list[CallerRecord | None]:
    """What was found for each beat that is counted now; None for one that nothing was written for."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(_RECORD_BATCH, _columns(beats), prepare=True)
    found: list[CallerRecord | None] = [None] * len(beats)
    for number, newest, generation, private_ip, token_id, prefix in await cursor.fetchall():
        found[number - 1] = CallerRecord(
            intent=Intent.RUN,
            deleted=False,
            newest=newest,
            current=generation,
            private_ip=private_ip,
            token_id=token_id,
            token_generation=generation,
            token_state="active",  # noqa: S106 - a word, no credential
            token_prefix=prefix,
        )
    return found


def _columns(beats: Sequence[HeartbeatInput]) -> dict[str, list[object]]:
    # In binary, and integers of one size: batches have the same types, so they are one prepared statement;
    # another for each column that is null throughout.
    return {
        "workspace_id": [each.workspace_id for each in beats],
        "sha256": [each.sha256 for each in beats],
        "secret_generation": [_int8(each.secret_generation) for each in beats],
        "active_tasks": [Int4(each.beat.active_tasks) for each in beats],
        "is_busy": [each.beat.is_busy for each in beats],
        "runtime_state": [each.beat.runtime_state for each in beats],
        "error_rate": [each.beat.error_rate for each in beats],
        "sample_error": [each.beat.sample_error for each in beats],
        "current_task": [each.beat.current_task for each in beats],
        "uptime_seconds": [Int8(each.beat.uptime_seconds) for each in beats],
    }


def _int8(number: int | None) -> Int8 | None:
    return None if number is None else Int8(number)
