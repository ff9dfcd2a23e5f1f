"""Reads the registration status of a generation: its row, its heartbeats, and its register calls."""

from datetime import datetime, timedelta

from store.db.pool import Connection
from store.registration import audit
from workflows.workspace.diagnosis import RegisterCallCount, RegistrationStatus

_REGISTRATION = """
SELECT g.registered_at, b.last_heartbeat_at,
       EXISTS (SELECT FROM tokens t WHERE t.workspace_id = g.workspace_id AND t.generation = g.generation
               AND t.state = 'pending')
       AND NOT EXISTS (SELECT FROM tokens t WHERE t.workspace_id = g.workspace_id
                       AND t.generation = g.generation AND t.last_used_at IS NOT NULL)
FROM generations g
LEFT JOIN heartbeats b ON b.workspace_id = g.workspace_id AND b.generation = g.generation
                 AND b.stale_since IS NULL AND b.last_heartbeat_at > now() - %(fresh)s::interval
WHERE g.workspace_id = %(workspace_id)s AND g.generation = %(generation)s
"""


async def read_registration(
    conn: Connection, workspace_id: str, *, generation: int, heartbeat_fresh_for: timedelta
) -> RegistrationStatus:
    """Registration, last fresh heartbeat, register calls by result. Empty for an unknown generation."""
    cursor = await conn.execute(
        _REGISTRATION, {"workspace_id": workspace_id, "generation": generation, "fresh": heartbeat_fresh_for}
    )
    row: tuple[datetime | None, datetime | None, bool] | None = await cursor.fetchone()
    registered_at, heartbeat_at, unused = row or (None, None, False)
    calls = await audit.register_calls(conn, workspace_id, generation=generation)
    return RegistrationStatus(
        registered_at=registered_at,
        heartbeat_at=heartbeat_at,
        token_unused=unused,
        calls=tuple(
            RegisterCallCount(
                code=call.code,
                count=call.count,
                from_box=call.from_box,
                last_at=call.last_at,
                source=None if call.source is None else str(call.source),
            )
            for call in calls
        ),
    )
