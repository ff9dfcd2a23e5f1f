"""What the watchdog finds, and what it has asked for.

Finds; it recreates nothing, and judges neither the fleet nor the requests.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection

REQUEST_RETRY_AFTER = timedelta(minutes=5)
"""A request that has no outcome by then was lost: its workflow is stuck, or was terminated."""

FENCED_WITHIN = timedelta(minutes=10)
"""A generation without a launch still waits for the box before it; then that is unconfirmed, and told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogThresholds:
    """How long something may be wrong before another box is asked for."""

    stale: timedelta = timedelta(seconds=180)
    """Without a beat, or without a live token. At 60 s, busy agents were once restarted in cascades."""
    grace: timedelta = timedelta(seconds=60)
    """After the deadlines that the lifecycle minds itself; the watchdog asks only where it has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A workspace whose box should be replaced."""

    workspace_id: str
    generation: int
    cause: str
    since: datetime
    request_count: int
    """How often this was asked for before."""
    total: int
    """How many there are to be asked for, with those beyond the limit."""

    @property
    def request_id(self) -> str:
        """The same for the same ask, so that a signal sent twice is one request."""
        return (
            f"watchdog-{self.generation}-{self.cause}-{self.since:%Y%m%dT%H%M%S.%f}-{self.request_count + 1}"
        )


# Each part is answered by a partial index that is empty where all is well. A cause is asked for once; again
# only when the answer said when, or never came.
_FIND = """
WITH found AS (
    SELECT workspace_id, generation, 'stale' AS cause, stale_since AS since
    FROM heartbeats WHERE stale_since IS NOT NULL AND last_heartbeat_at < now() - %(stale)s::interval
    UNION ALL
    SELECT workspace_id, generation, 'credential_lost', credential_lost_at
    FROM heartbeats WHERE credential_lost_at IS NOT NULL AND credential_lost_at < now() - %(stale)s::interval
    UNION ALL
    SELECT workspace_id, generation, 'not_processing', agent_unresponsive_since
    FROM generations
    WHERE superseded_at IS NULL AND agent_unresponsive_since IS NOT NULL
      AND agent_unresponsive_since + coalesce((spec->'timings'->>'not_processing')::interval, '3 min')
          < now() - %(grace)s::interval
    UNION ALL
    SELECT g.workspace_id, g.generation, 'unregistered', g.opened_at
    FROM generations g
    WHERE g.superseded_at IS NULL AND g.registered_at IS NULL AND g.opened_at < now() - %(grace)s::interval
      AND coalesce((SELECT max(l.requested_at) FROM launches l
                    WHERE l.workspace_id = g.workspace_id AND l.generation = g.generation),
                   g.opened_at + %(fenced)s::interval)
          + (g.spec->'timings'->>'register_deadline')::interval < now() - %(grace)s::interval
), due AS (
    SELECT DISTINCT ON (f.workspace_id) f.*, coalesce(a.request_count, 0) AS request_count
    FROM found f
    JOIN generations g ON g.workspace_id = f.workspace_id AND g.generation = f.generation
                      AND g.superseded_at IS NULL
    LEFT JOIN watchdog_requests a ON a.workspace_id = f.workspace_id AND a.generation = f.generation
                             AND a.cause = f.cause AND a.since = f.since
    LEFT JOIN requests r ON r.workspace_id = a.workspace_id AND r.request_id = a.request_id
    WHERE (a.request_id IS NULL
           OR r.outcome = 'deferred' AND r.retry_at <= now()
           OR r.outcome IS NULL AND a.last_requested_at < now() - %(again)s::interval)
      AND NOT (f.cause IN ('not_processing', 'unregistered')
               AND EXISTS (SELECT FROM requests own
                           WHERE own.workspace_id = f.workspace_id AND own.requested_by = %(lifecycle)s
                             AND own.observed_generation = f.generation))
    ORDER BY f.workspace_id, f.since
)
SELECT workspace_id, generation, cause, since, request_count, count(*) OVER () AS total
FROM due ORDER BY since LIMIT %(limit)s
"""


async def find_due(
    conn: Connection, *, thresholds: WatchdogThresholds, lifecycle: str, limit: int
) -> list[Finding]:
    """What another box is to be asked for now, the oldest trouble first; `lifecycle` asks for its own."""
    cursor = conn.cursor(row_factory=class_row(Finding))
    await cursor.execute(
        _FIND,
        {
            "stale": thresholds.stale,
            "grace": thresholds.grace,
            "fenced": FENCED_WITHIN,
            "again": REQUEST_RETRY_AFTER,
            "lifecycle": lifecycle,
            "limit": limit,
        },
    )
    return await cursor.fetchall()


async def record_requests(conn: Connection, findings: Sequence[Finding]) -> None:
    """They are asked for now; noted before they are sent, so that a crash between costs minutes only."""
    if findings:
        await conn.cursor().executemany(
            """
            INSERT INTO watchdog_requests AS a (workspace_id, generation, cause, since, request_id,
            request_count)
            VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (workspace_id, generation, cause) DO UPDATE
            SET since = excluded.since, request_id = excluded.request_id, request_count =
            excluded.request_count,
                last_requested_at = now()
            """,
            [
                [
                    each.workspace_id,
                    each.generation,
                    each.cause,
                    each.since,
                    each.request_id,
                    each.request_count + 1,
                ]
                for each in findings
            ],
        )
