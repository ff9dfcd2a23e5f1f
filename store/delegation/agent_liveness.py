"""Whether agents process what they are given: marking those that don't, and those that do again.

Tells of a change once, as a fact; what follows is the lifecycle's matter.
"""

from dataclasses import dataclass
from datetime import timedelta

from store.db.pool import Connection

# Busy is not dead: a box that beats and says that it works may take the time of a task before it acks.
_MARK = """
WITH dead AS (
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
        agent_unresponsive_reason = CASE WHEN dead.unacked > 0
            THEN dead.unacked || ' delegations were delivered and not acknowledged'
            ELSE dead.stalled || ' delegations are stalled: nothing was heard of them' END
    FROM dead WHERE g.workspace_id = dead.target_id AND g.generation = dead.target_generation
      -- looked at again, if this had to wait for another scan or for the next generation
      AND g.agent_unresponsive_since IS NULL AND g.superseded_at IS NULL
    RETURNING g.workspace_id, g.generation, g.agent_unresponsive_reason
)
INSERT INTO workspace_outbox (workspace_id, generation, kind, detail)
SELECT workspace_id, generation, 'not_processing', agent_unresponsive_reason FROM marked
"""

_CLEAR = """
WITH well AS (
    UPDATE generations g SET agent_unresponsive_since = NULL, agent_unresponsive_reason = NULL
    WHERE g.superseded_at IS NULL AND g.agent_unresponsive_since IS NOT NULL
      AND NOT EXISTS (SELECT FROM delegations d
                      WHERE d.target_id = g.workspace_id AND d.target_generation = g.generation
                        AND (d.state = 'delivered' AND d.delivered_at < now() - %(ack)s
                             OR d.stalled AND d.ended_at IS NULL))
    RETURNING g.workspace_id, g.generation
)
INSERT INTO workspace_outbox (workspace_id, generation, kind) SELECT workspace_id, generation, 'processing'
FROM well
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
    """How long an agent may be quiet about what it was given."""

    ack: timedelta
    progress: timedelta
    expires_after: timedelta
    """From its making to its end, whatever happens."""
    heartbeat_stale: timedelta


async def mark_agents(conn: Connection, thresholds: LivenessThresholds) -> tuple[int, int]:
    """Tell once of boxes that don't process, and of those that do again; how many of each."""
    names = {"ack": thresholds.ack, "progress": thresholds.progress, "stale": thresholds.heartbeat_stale}
    dead = await conn.execute(_MARK, names)
    well = await conn.execute(_CLEAR, names)
    return dead.rowcount, well.rowcount


async def record_processed(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """The box has processed something; its first time is a fact."""
    await conn.execute(_PROCESSED, {"workspace_id": workspace_id, "generation": generation})


async def has_processed(conn: Connection, workspace_id: str, *, generation: int, within: timedelta) -> bool:
    """Whether the box has processed something lately."""
    cursor = await conn.execute(
        "SELECT FROM generations"
        " WHERE workspace_id = %s AND generation = %s AND last_processed_at > now() - %s",
        [workspace_id, generation, within],
    )
    return cursor.rowcount == 1


async def record_canary_answer(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """The box has answered the control plane's own question: the lifecycle, which asked, knows."""
    await conn.execute(
        "UPDATE generations SET last_processed_at = now() WHERE workspace_id = %s AND generation = %s",
        [workspace_id, generation],
    )
