"""The fleet in figures, for metrics: one statement, one moment.

Counts what the record says. Every part but the phases is answered by an index that holds only what is open.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.pool import Connection

SHOWN_SILENCE = timedelta(minutes=1)
"""Silence is told to the workflow and shown within seconds; after a minute, `online` is wrong."""

SLACK = timedelta(minutes=10)
"""After a delegation's expiry; an outage of the workers is another alert's matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is counted at one moment. Ages are in seconds, and None where there is nothing that ages."""

    phases: dict[str, int]
    running: int
    stale: int
    """Of the running, those whose box is silent."""
    online_unheard: int
    """Shown as online although the box is silent: must be 0."""
    most_tokens: int
    """The largest number of live tokens of one generation."""
    crowded_tokens: int
    """Generations with more tokens than they may have, or with any though superseded: must be 0."""
    facts: int
    facts_age: float | None
    stirrings: int
    delegations: dict[str, int]
    """Open ones, by state."""
    delegations_ended: dict[str, int]
    """Of the last hour, by state."""
    unacked_age: float | None
    overdue: int
    """Open although long expired: must be 0."""
    orphans: dict[str, int]
    """By verdict, as the last pass saw them."""
    looked_at: datetime | None
    alive: int | None
    crowded: int | None
    """Workspaces with more than one live instance: must be 0."""
    most_alive: int | None
    watched_at: datetime | None
    watchdog_frozen: bool
    intake_age: float | None


_FIGURES = """
SELECT phases, running, stale, online_unheard, most_tokens, crowded_tokens, facts, facts_age, stirrings,
       delegations, delegations_ended, unacked_age, overdue, orphans,
       i.looked_at, i.alive, i.crowded, i.most AS most_alive,
       w.ended_at AS watched_at, w.frozen IS NOT NULL AS watchdog_frozen,
       extract(epoch FROM now() - k.last_at)::float8 AS intake_age
FROM (SELECT coalesce(jsonb_object_agg(phase, n), '{}') AS phases
      FROM (SELECT phase, count(*) AS n FROM workspaces WHERE deleted_at IS NULL GROUP BY phase) each_phase),
     (SELECT count(*) AS running FROM generations WHERE superseded_at IS NULL),
     (SELECT count(*) AS stale,
             count(*) FILTER (WHERE w.phase = 'online' AND b.silent_since < now() - %(shown)s::interval)
                 AS online_unheard
      FROM beats b JOIN generations g USING (workspace_id, generation) JOIN workspaces w USING (workspace_id)
      WHERE b.silent_since IS NOT NULL AND g.superseded_at IS NULL),
     (SELECT coalesce(max(live), 0) AS most_tokens,
             count(*) FILTER (WHERE active > 1 OR pending > 1 OR NOT is_current) AS crowded_tokens
      FROM (SELECT count(*) AS live, count(*) FILTER (WHERE state = 'active') AS active,
                   count(*) FILTER (WHERE state = 'pending') AS pending,
                   bool_or(g.superseded_at IS NULL) AS is_current
            FROM tokens t JOIN generations g USING (workspace_id, generation)
            WHERE t.state <> 'revoked' GROUP BY workspace_id, generation) each_generation),
     (SELECT count(*) AS facts, extract(epoch FROM clock_timestamp() - min(at))::float8 AS facts_age
      FROM facts),
     (SELECT count(*) AS stirrings FROM stirrings),
     (SELECT coalesce(jsonb_object_agg(state, n), '{}') AS delegations
      FROM (SELECT state, count(*) AS n FROM delegations
            WHERE ended_at IS NULL AND type <> 'canary' GROUP BY state) each_state),
     (SELECT coalesce(jsonb_object_agg(state, n), '{}') AS delegations_ended
      FROM (SELECT state, count(*) AS n FROM delegations
            WHERE ended_at IS NOT NULL AND type = 'delegate' AND ended_at > now() - interval '1 hour'
            GROUP BY state) each_end),
     (SELECT extract(epoch FROM clock_timestamp() - min(delivered_at))::float8 AS unacked_age
      FROM delegations WHERE state = 'delivered' AND type = 'delegate'),
     (SELECT count(*) AS overdue FROM delegations
      WHERE ended_at IS NULL AND type <> 'canary' AND created_at < now() - %(expired)s::interval),
     (SELECT coalesce(jsonb_object_agg(verdict, n), '{}') AS orphans
      FROM (SELECT verdict, count(*) AS n FROM orphans
            WHERE last_seen >= coalesce((SELECT looked_at FROM inventory), now()) - interval '1 minute'
            GROUP BY verdict) each_verdict)
LEFT JOIN inventory i ON true
LEFT JOIN watchdog_rounds w ON true
LEFT JOIN intake k ON true
"""


async def read(conn: Connection, *, expire: timedelta) -> Figures:
    """Count; `expire` is how long a delegation may be open."""
    cursor = conn.cursor(row_factory=class_row(Figures))
    await cursor.execute(_FIGURES, {"shown": SHOWN_SILENCE, "expired": expire + SLACK})
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("a query of counts has one row")
    return row
