"""Orphans: what the database claims of listed resources, and the sightings of orphans.

`workflows.orphans.rules` decides which resources are orphans and what is done about them.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection
from store.outbox import workspace_events
from workflows.orphans.rules import Claims, OrphanAction, OrphanDecision, Sighting, WorkspaceClaim
from workflows.workspace.enums import BoxEventKind

RETENTION = timedelta(days=7)
"""How long orphans that are no longer listed are kept for operators."""

_EVENT_KINDS = {
    OrphanAction.ORPHAN: BoxEventKind.ORPHAN,
    OrphanAction.UNRECORDED_INSTANCE: BoxEventKind.UNRECORDED_INSTANCE,
}


async def lock_for_pass(conn: Connection) -> datetime:
    """Allow one pass at a time until the transaction ends. Returns the time of the transaction."""
    await conn.execute("LOCK TABLE orphans IN SHARE ROW EXCLUSIVE MODE")
    cursor = await conn.execute("SELECT now()")
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("SELECT now() returned no row")
    now: datetime = row[0]
    return now


async def claims(conn: Connection, *, workspaces: Sequence[str], instances: Sequence[str]) -> Claims:
    """The claims of these workspaces, and those of the instances that are boxes of open generations."""
    cursor = conn.cursor(row_factory=class_row(WorkspaceClaim))
    await cursor.execute(
        """
        SELECT w.workspace_id, w.deleted_at IS NOT NULL AS deleted, w.generation,
               g.generation IS NOT NULL AS current, coalesce(l.attempt, 0) AS attempt, l.instance_id,
               l.capacity_error IS NOT NULL AS refused
        FROM workspaces w
        LEFT JOIN generations g ON g.workspace_id = w.workspace_id AND g.superseded_at IS NULL
        LEFT JOIN LATERAL (
            SELECT attempt, instance_id, capacity_error FROM launches
            WHERE workspace_id = g.workspace_id AND generation = g.generation
            ORDER BY attempt DESC LIMIT 1
        ) l ON true
        WHERE w.workspace_id = ANY(%s)
        """,
        [list(workspaces)],
    )
    known = {claim.workspace_id: claim for claim in await cursor.fetchall()}
    current = await conn.execute(
        "SELECT instance_id FROM generations WHERE superseded_at IS NULL AND instance_id = ANY(%s)",
        [list(instances)],
    )
    boxes = {row[0] for row in await current.fetchall()}
    boxes |= {claim.instance_id for claim in known.values() if claim.instance_id is not None}
    any_workspace = await conn.execute("SELECT FROM workspaces LIMIT 1")
    return Claims(workspaces=known, instances=frozenset(boxes), empty=await any_workspace.fetchone() is None)


async def sightings(conn: Connection, names: Sequence[str]) -> dict[str, Sighting]:
    """The recorded sightings of these names."""
    cursor = await conn.execute(
        """
        SELECT name, first_seen, last_seen, sightings, pass_id, handled_at FROM orphans WHERE name = ANY(%s)
        """,
        [list(names)],
    )
    return {
        row[0]: Sighting(first_seen=row[1], last_seen=row[2], times=row[3], pass_id=row[4], acted_at=row[5])
        for row in await cursor.fetchall()
    }


async def save_sightings(conn: Connection, decisions: Iterable[OrphanDecision]) -> None:
    """Store the sightings. Delete those of resources that are claimed now, and those past `RETENTION`."""
    rows, claimed = [], []
    for one in decisions:
        found, seen = one.resource, one.sighting
        if seen is None:
            if one.action is OrphanAction.CLAIMED:
                claimed.append(found.name)
            continue
        rows.append(
            [
                found.name,
                found.kind,
                found.workspace_id,
                found.generation,
                found.attempt,
                seen.first_seen,
                seen.last_seen,
                seen.times,
                seen.pass_id,
                one.action,
                seen.acted_at,
            ]
        )
    if rows:
        await conn.cursor().executemany(
            """
            INSERT INTO orphans (name, kind, workspace_id, generation, attempt, first_seen, last_seen,
                                 sightings, pass_id, verdict, handled_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (name) DO UPDATE
            SET workspace_id = excluded.workspace_id, generation = excluded.generation,
                attempt = excluded.attempt, first_seen = excluded.first_seen, last_seen = excluded.last_seen,
                sightings = excluded.sightings, pass_id = excluded.pass_id, verdict = excluded.verdict,
                handled_at = excluded.handled_at
            """,
            rows,
        )
    await conn.execute(
        "DELETE FROM orphans WHERE name = ANY(%s) OR last_seen < now() - %s::interval", [claimed, RETENTION]
    )


async def enqueue_events(conn: Connection, decisions: Iterable[OrphanDecision]) -> None:
    """Enqueue events for the workflows of these orphans."""
    events = [
        (one.resource.workspace_id, one.resource.generation, _EVENT_KINDS[one.action], one.resource.name)
        for one in decisions
        if one.action in _EVENT_KINDS and one.resource.workspace_id is not None
    ]
    await workspace_events.enqueue(conn, events)


async def mark_terminated(conn: Connection, names: Sequence[str]) -> None:
    """Mark them as terminated. Called before TerminateInstances."""
    await conn.execute(
        "UPDATE orphans SET verdict = 'terminated', handled_at = now() WHERE name = ANY(%s)", [list(names)]
    )
