"""The watchdog's findings, and the recreates that it has requested."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection

REQUEST_RETRY_AFTER = timedelta(minutes=5)
"""A request without an outcome by then was lost: its workflow is stuck or was terminated."""

FENCED_WITHIN = timedelta(minutes=10)
"""How long a generation without a launch may wait for its fence before it counts as unregistered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogThresholds:
    """How long a failure may last before a recreate is requested."""

    stale: timedelta = timedelta(seconds=180)
    """Without heartbeats, or without a valid token. 60 s once caused cascades of restarts of busy agents."""
    grace: timedelta = timedelta(seconds=60)
    """After deadlines of the workflow: the watchdog requests a recreate only if the workflow did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A workspace whose box should be replaced."""

    workspace_id: str
    generation: int
    cause: str
    since: datetime
    request_count: int
    """How often a recreate was requested for this cause."""
    total: int
    """The number of findings, including those beyond the limit."""

    @property
    def request_id(self) -> str:
        """Deterministic, so that a signal sent twice is one request."""
        return (
            f"watchdog-{self.generation}-{self.cause}-{self.since:%Y%m%dT%H%M%S.%f}-{self.request_count + 1}"
        )


# Each part uses a partial index that is empty in a healthy fleet. A cause is requested once, and again only
# after the `retry_at` of a deferred outcome, or without any outcome.
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
    """Boxes to recreate, oldest failure first, except causes that `lifecycle` has requested itself."""
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
    """Record the requests. Called before they are sent, so that a crash only delays them."""
    if findings:
        await conn.cursor().executemany(
            """
            INSERT INTO watchdog_requests
                (workspace_id, generation, cause, since, request_id, request_count)
            VALUES (%s, %s, %s, %s, %s, %s)
            ON CONFLICT (workspace_id, generation, cause) DO UPDATE
            SET since = excluded.since, request_id = excluded.request_id,
                request_count = excluded.request_count, last_requested_at = now()
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
