"""Marks agents that do not process their work, and clears the mark. Each change inserts one event."""

from dataclasses import dataclass
from datetime import timedelta

from store.db.pool import Connection

# A busy box with fresh heartbeats may take as long as a task takes before it acknowledges the next one.
_MARK = """
WITH unresponsive AS (
    SELECT d.target_id, d.target_generation, count(*) FILTER (WHERE d.state = 'delivered') AS unacked,
           count(*) FILTER (WHERE d.stalled) AS stalled, min(d.delivered_at) AS since
    FROM delegations d
    JOIN generations g ON g.workspace_id = d.target_id AND g.generation = d.target_generation
                      AND g.superseded_at IS NULL AND g.agent_unresponsive_since IS NULL
    LEFT JOIN heartbeats b ON b.workspace_id = d.target_id AND b.generation = d.target_generation
    WHERE d.type <> 'record'
      AND (d.state = 'delivered' AND d.delivered_at < now() - %(ack)s
           AND NOT (d.delivered_at > now() - %(progress)s AND b.last_heartbeat_at > now() - %(stale)s
                    AND (coalesce(b.is_busy, false) OR b.active_tasks > 0))
           OR d.stalled AND d.ended_at IS NULL)
    GROUP BY d.target_id, d.target_generation
), marked AS (
    UPDATE generations g
    SET agent_unresponsive_since = now(),
        agent_unresponsive_reason = CASE WHEN unresponsive.unacked > 0
            THEN unresponsive.unacked || ' delegations were delivered and not acknowledged'
            ELSE unresponsive.stalled || ' delegations made no progress' END
    FROM unresponsive
    WHERE g.workspace_id = unresponsive.target_id AND g.generation = unresponsive.target_generation
      -- checked again: the update may have waited for another scan or for the next generation
      AND g.agent_unresponsive_since IS NULL AND g.superseded_at IS NULL
    RETURNING g.workspace_id, g.generation, g.agent_unresponsive_reason
)
INSERT INTO workspace_outbox (workspace_id, generation, kind, detail)
SELECT workspace_id, generation, 'not_processing', agent_unresponsive_reason FROM marked
"""

_CLEAR = """
WITH cleared AS (
    UPDATE generations g SET agent_unresponsive_since = NULL, agent_unresponsive_reason = NULL
    WHERE g.superseded_at IS NULL AND g.agent_unresponsive_since IS NOT NULL
      AND NOT EXISTS (SELECT FROM delegations d
                      WHERE d.target_id = g.workspace_id AND d.target_generation = g.generation
                        AND (d.state = 'delivered' AND d.delivered_at < now() - %(ack)s
                             OR d.stalled AND d.ended_at IS NULL))
    RETURNING g.workspace_id, g.generation
)
INSERT INTO workspace_outbox (workspace_id, generation, kind)
SELECT workspace_id, generation, 'processing' FROM cleared
"""

_PROCESSED = """
WITH before AS (
    SELECT workspace_id, generation, last_processed_at FROM generations
    WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
), written AS (
    UPDATE generations g SET last_processed_at = now()
    FROM before WHERE g.workspace_id = before.workspace_id AND g.generation = before.generation
    RETURNING before.workspace_id, before.generation, before.last_processed_at
)
INSERT INTO workspace_outbox (workspace_id, generation, kind)
SELECT workspace_id, generation, 'processing' FROM written WHERE last_processed_at IS NULL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivenessThresholds:
    """How long an agent may take before it counts as unresponsive."""

    ack: timedelta
    progress: timedelta
    expires_after: timedelta
    """The maximum lifetime of a delegation."""
    heartbeat_stale: timedelta


async def mark_agents(conn: Connection, thresholds: LivenessThresholds) -> tuple[int, int]:
    """Mark unresponsive agents and clear responsive ones. Returns the number of each."""
    names = {"ack": thresholds.ack, "progress": thresholds.progress, "stale": thresholds.heartbeat_stale}
    marked = await conn.execute(_MARK, names)
    cleared = await conn.execute(_CLEAR, names)
    return marked.rowcount, cleared.rowcount


async def record_processed(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Record that the box processed work. The first time inserts an event."""
    await conn.execute(_PROCESSED, {"workspace_id": workspace_id, "generation": generation})


async def has_processed(conn: Connection, workspace_id: str, *, generation: int, within: timedelta) -> bool:
    """Whether the box processed work within this time."""
    cursor = await conn.execute(
        "SELECT FROM generations"
        " WHERE workspace_id = %s AND generation = %s AND last_processed_at > now() - %s",
        [workspace_id, generation, within],
    )
    return cursor.rowcount == 1


async def record_canary_answer(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Record an answered canary. No event: the workflow that sent the canary gets the result."""
    await conn.execute(
        "UPDATE generations SET last_processed_at = now() WHERE workspace_id = %s AND generation = %s",
        [workspace_id, generation],
    )
