"""Metrics of the fleet, from one statement and thus one snapshot.

Partial indexes that contain only open rows serve every part except the phases.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection

STALE_GRACE = timedelta(minutes=1)
"""Stale heartbeats reach the status within seconds. After a minute, `online` is wrong."""

EXPIRY_GRACE = timedelta(minutes=10)
"""After a delegation's expiry. Other alerts cover outages of the workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMetrics:
    """The counts of one snapshot. Ages are in seconds, and None if there is no such row."""

    phases: dict[str, int]
    running: int
    stale: int
    """Running workspaces with stale heartbeats."""
    online_but_stale: int
    """Shown as online with stale heartbeats: must be 0."""
    max_live_tokens: int
    """The largest number of live tokens of one generation."""
    generations_with_extra_tokens: int
    """Generations with too many live tokens, or superseded ones with any: must be 0."""
    workspace_events: int
    workspace_events_age: float | None
    delegation_events: int
    delegations: dict[str, int]
    """Open delegations, by state."""
    delegations_ended: dict[str, int]
    """Delegations that ended within the last hour, by state."""
    oldest_unacked_age: float | None
    overdue: int
    """Open delegations past their expiry: must be 0."""
    orphans: dict[str, int]
    """Orphans of the last pass, by verdict."""
    listed_at: datetime | None
    running_instances: int | None
    workspaces_with_duplicates: int | None
    """Workspaces with more than one live instance: must be 0."""
    max_per_workspace: int | None
    watchdog_ran_at: datetime | None
    watchdog_frozen: bool
    intake_age: float | None


_METRICS = """
SELECT phases, open_generations AS running, stale, online_but_stale, max_live_tokens,
       generations_with_extra_tokens, workspace_events, workspace_events_age, delegation_events,
       delegations, delegations_ended, oldest_unacked_age, overdue, orphans,
       i.listed_at, i.running AS running_instances, i.workspaces_with_duplicates,
       i.max_per_workspace,
       w.ended_at AS watchdog_ran_at, w.frozen_reason IS NOT NULL AS watchdog_frozen,
       extract(epoch FROM now() - k.last_seen_at)::float8 AS intake_age
FROM (SELECT coalesce(jsonb_object_agg(phase, n), '{}') AS phases
      FROM (SELECT phase, count(*) AS n FROM workspaces WHERE deleted_at IS NULL GROUP BY phase) each_phase),
     (SELECT count(*) AS open_generations FROM generations WHERE superseded_at IS NULL),
     (SELECT count(*) AS stale,
             count(*) FILTER (WHERE w.phase = 'online' AND b.stale_since < now() - %(shown)s::interval)
                 AS online_but_stale
      FROM heartbeats b JOIN generations g USING (workspace_id, generation)
      JOIN workspaces w USING (workspace_id)
      WHERE b.stale_since IS NOT NULL AND g.superseded_at IS NULL),
     (SELECT coalesce(max(live), 0) AS max_live_tokens,
             count(*) FILTER (WHERE active > 1 OR pending > 1 OR NOT is_current)
                 AS generations_with_extra_tokens
      FROM (SELECT count(*) AS live, count(*) FILTER (WHERE state = 'active') AS active,
                   count(*) FILTER (WHERE state = 'pending') AS pending,
                   bool_or(g.superseded_at IS NULL) AS is_current
            FROM tokens t JOIN generations g USING (workspace_id, generation)
            WHERE t.state <> 'revoked' GROUP BY workspace_id, generation) each_generation),
     (SELECT count(*) AS workspace_events,
             extract(epoch FROM clock_timestamp() - min(occurred_at))::float8 AS workspace_events_age
      FROM workspace_outbox),
     (SELECT count(*) AS delegation_events FROM delegation_outbox),
     (SELECT coalesce(jsonb_object_agg(state, n), '{}') AS delegations
      FROM (SELECT state, count(*) AS n FROM delegations
            WHERE ended_at IS NULL AND type <> 'canary' GROUP BY state) each_state),
     (SELECT coalesce(jsonb_object_agg(state, n), '{}') AS delegations_ended
      FROM (SELECT state, count(*) AS n FROM delegations
            WHERE ended_at IS NOT NULL AND type = 'delegate' AND ended_at > now() - interval '1 hour'
            GROUP BY state) each_end),
     (SELECT extract(epoch FROM clock_timestamp() - min(delivered_at))::float8 AS oldest_unacked_age
      FROM delegations WHERE state = 'delivered' AND type = 'delegate'),
     (SELECT count(*) AS overdue FROM delegations
      WHERE ended_at IS NULL AND type <> 'canary' AND created_at < now() - %(expired)s::interval),
     (SELECT coalesce(jsonb_object_agg(verdict, n), '{}') AS orphans
      FROM (SELECT verdict, count(*) AS n FROM orphans
            WHERE last_seen >= coalesce((SELECT listed_at FROM ec2_inventory), now()) - interval '1 minute'
            GROUP BY verdict) each_verdict)
LEFT JOIN ec2_inventory i ON true
LEFT JOIN watchdog_status w ON true
LEFT JOIN heartbeat_intake k ON true
"""


async def read(conn: Connection, *, expire: timedelta) -> FleetMetrics:
    """Read the metrics. `expire` is the maximum lifetime of a delegation."""
    cursor = conn.cursor(row_factory=class_row(FleetMetrics))
    await cursor.execute(_METRICS, {"shown": STALE_GRACE, "expired": expire + EXPIRY_GRACE})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("the query of metrics returned no row")
    return row
