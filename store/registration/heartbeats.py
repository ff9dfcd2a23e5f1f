"""Heartbeats: recording one, and marking boxes whose heartbeats are stale."""

from dataclasses import dataclass
from datetime import timedelta

from store.db.pool import Connection
from store.registration.caller_lookup import CallerRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """The content of a heartbeat, which a box sends every 30 s. Omitted members have these defaults."""

    active_tasks: int = 0
    is_busy: bool | None = None
    runtime_state: str | None = None
    error_rate: float = 0.0
    sample_error: str = ""
    current_task: str = ""
    uptime_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatResult:
    """The caller of a heartbeat, and whether the heartbeat was counted."""

    caller: CallerRecord
    counted: bool
    confirmed: bool
    """Whether this was the first use of a pending token."""
    first: bool
    """Whether it was the first of the generation, or the first after stale heartbeats or lost credentials."""


# One statement, so that a heartbeat costs one round trip. All parts see the same snapshot; row locks make it
# safe. If the generation is superseded concurrently, its tokens are revoked: `used` then updates no row, and
# nothing else is written. `revoked` runs before `used`, because the index allows one active token. Concurrent
# heartbeats of one workspace are serialized by its row in `heartbeats`.
_RECORD = """
WITH workspace AS (
    SELECT w.intent, w.deleted_at IS NOT NULL AS deleted, w.generation AS newest, g.generation AS current,
           g.private_ip
    FROM workspaces w
    LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.superseded_at IS NULL
    WHERE w.workspace_id = %(workspace_id)s
), presented AS (
    SELECT token_id, generation, state, prefix FROM tokens
    WHERE sha256 = %(sha256)s::bytea AND workspace_id = %(workspace_id)s
), entitled AS (
    SELECT p.token_id, p.generation, p.state
    FROM presented p JOIN workspace w ON w.current = p.generation
    WHERE p.state IN ('pending', 'active', 'retiring') AND w.intent = 'run' AND NOT w.deleted
      AND COALESCE(%(secret_generation)s::bigint, w.current) = w.current
), revoked AS (
    UPDATE tokens t SET state = 'revoked', revoked_at = now()
    FROM entitled e
    WHERE e.state = 'pending' AND t.workspace_id = %(workspace_id)s AND t.generation = e.generation
      AND t.token_id <> e.token_id AND t.state IN ('active', 'retiring')
    RETURNING t.token_id
), used AS (
    UPDATE tokens t
    SET last_used_at = now(), nonce = NULL, state = CASE t.state WHEN 'pending' THEN 'active' ELSE t.state END
    FROM entitled e
    WHERE t.token_id = e.token_id AND t.state IN ('pending', 'active', 'retiring')
      AND (SELECT count(*) FROM revoked) >= 0
    RETURNING e.generation, e.state = 'pending' AS confirmed
), noted AS (
    INSERT INTO heartbeats AS b (workspace_id, generation, last_heartbeat_at, alive_since, active_tasks,
                                 is_busy, runtime_state, error_rate, sample_error, current_task,
                                 uptime_seconds)
    SELECT %(workspace_id)s, used.generation, now(), now(), %(active_tasks)s::int, %(is_busy)s::boolean,
           %(runtime_state)s::text, %(error_rate)s::float8, %(sample_error)s::text, %(current_task)s::text,
           %(uptime_seconds)s::bigint
    FROM used
    ON CONFLICT (workspace_id) DO UPDATE
    SET generation = excluded.generation, last_heartbeat_at = excluded.last_heartbeat_at, stale_since = NULL,
        unauthenticated_count = 0, credential_lost_at = NULL,
        alive_since = CASE
            WHEN b.generation = excluded.generation AND b.stale_since IS NULL
                 AND b.last_heartbeat_at IS NOT NULL AND b.credential_lost_at IS NULL
            THEN b.alive_since ELSE excluded.alive_since END,
        active_tasks = excluded.active_tasks, is_busy = excluded.is_busy,
        runtime_state = excluded.runtime_state, error_rate = excluded.error_rate,
        sample_error = excluded.sample_error, current_task = excluded.current_task,
        uptime_seconds = excluded.uptime_seconds
    WHERE b.generation <= excluded.generation
    RETURNING b.generation, b.alive_since = now() AS first
), event AS (
    INSERT INTO workspace_outbox (workspace_id, generation, kind)
    SELECT %(workspace_id)s, noted.generation, 'alive' FROM noted WHERE noted.first
)
SELECT w.intent, w.deleted, w.newest, w.current, w.private_ip, p.token_id, p.generation, p.state, p.prefix,
       noted.first IS NOT NULL, COALESCE(used.confirmed, false), COALESCE(noted.first, false)
FROM workspace w LEFT JOIN presented p ON true LEFT JOIN used ON true LEFT JOIN noted ON true
"""

_MARK_STALE = """
WITH overdue AS (
    SELECT b.workspace_id
    FROM heartbeats b
    JOIN generations g ON g.workspace_id = b.workspace_id AND g.generation = b.generation
                      AND g.superseded_at IS NULL
    JOIN workspaces w ON w.workspace_id = b.workspace_id AND w.intent = 'run'
    WHERE b.stale_since IS NULL AND b.last_heartbeat_at < now() - %(older_than)s
    ORDER BY b.last_heartbeat_at LIMIT %(limit)s
    FOR UPDATE OF b SKIP LOCKED
), marked AS (
    UPDATE heartbeats b SET stale_since = now() FROM overdue
    WHERE b.workspace_id = overdue.workspace_id
    RETURNING b.workspace_id, b.generation
)
INSERT INTO workspace_outbox (workspace_id, generation, kind)
SELECT workspace_id, generation, 'stale' FROM marked
"""

_COUNT_UNAUTHENTICATED = """
WITH counted AS (
    UPDATE heartbeats b
    SET unauthenticated_count = b.unauthenticated_count + 1,
        credential_lost_at = CASE WHEN b.unauthenticated_count + 1 >= %(threshold)s
                                  THEN COALESCE(b.credential_lost_at, now()) END
    FROM generations g
    WHERE b.workspace_id = %(workspace_id)s AND b.generation = %(generation)s
      AND g.workspace_id = b.workspace_id AND g.generation = b.generation AND g.superseded_at IS NULL
    RETURNING b.workspace_id, b.generation, b.unauthenticated_count
), event AS (
    INSERT INTO workspace_outbox (workspace_id, generation, kind)
    SELECT workspace_id, generation, 'credential_lost' FROM counted
    WHERE unauthenticated_count = %(threshold)s
)
SELECT unauthenticated_count FROM counted
"""


async def record(
    conn: Connection,
    workspace_id: str,
    *,
    sha256: bytes | None,
    secret_generation: int | None,
    heartbeat: Heartbeat,
) -> HeartbeatResult | None:
    """Count the heartbeat if its token is live and of the current generation. None if unknown.

    A bootstrap secret of another generation in the same call takes precedence over the token.
    """
    cursor = await conn.execute(
        _RECORD,
        {
            "workspace_id": workspace_id,
            "sha256": sha256,
            "secret_generation": secret_generation,
            "active_tasks": heartbeat.active_tasks,
            "is_busy": heartbeat.is_busy,
            "runtime_state": heartbeat.runtime_state,
            "error_rate": heartbeat.error_rate,
            "sample_error": heartbeat.sample_error,
            "current_task": heartbeat.current_task,
            "uptime_seconds": heartbeat.uptime_seconds,
        },
        prepare=True,
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    *found, counted, confirmed, first = row
    return HeartbeatResult(caller=CallerRecord(*found), counted=counted, confirmed=confirmed, first=first)


async def mark_stale(conn: Connection, *, older_than: timedelta, limit: int) -> int:
    """Mark boxes without heartbeats for `older_than`, insert an event for each, and return their number.

    Concurrent scans share the work: rows locked by another scan are skipped.
    """
    cursor = await conn.execute(_MARK_STALE, {"older_than": older_than, "limit": limit})
    return cursor.rowcount


async def count_unauthenticated(
    conn: Connection, workspace_id: str, *, generation: int, threshold: int
) -> int:
    """Count a heartbeat of the current box without a live token. Number `threshold` inserts an event.

    Returns the number in a row; 0 if the generation is not the current one.
    """
    cursor = await conn.execute(
        _COUNT_UNAUTHENTICATED,
        {"workspace_id": workspace_id, "generation": generation, "threshold": threshold},
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])
