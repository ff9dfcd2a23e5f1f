"""Reads the state of a delegation, its source and its target: the input of `workflows.delegation.rules`."""

from dataclasses import dataclass
from datetime import datetime

from store.db.pool import Connection
from workflows.delegation.rules import Delegation, DelegationState, DelegationType, Receiver


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationRow:
    """A row, with the state of its source and target."""

    delegation: Delegation
    target_id: str
    task_bytes: int
    address: str | None
    url: str | None
    now: datetime


async def read(conn: Connection, delegation_id: str) -> DelegationRow | None:
    """The delegation as input of the rules; None if it does not exist."""
    cursor = await conn.execute(
        """
        SELECT d.type, d.state, d.created_at, d.attempts, d.connect_failures, d.next_attempt_at,
               d.target_generation, d.progressed_at, d.idempotent, d.stalled, d.dead_lettered,
               d.target_id, octet_length(d.task),
               coalesce(s.intent = 'delete' OR s.deleted_at IS NOT NULL, false) AS source_deleted,
               t.intent = 'delete' OR t.deleted_at IS NOT NULL AS target_deleted,
               g.generation, g.registered_at IS NOT NULL AND g.url <> '' AND g.private_ip IS NOT NULL,
               host(g.private_ip), g.url, clock_timestamp()
        FROM delegations d
        LEFT JOIN workspaces s ON s.workspace_id = d.source_id
        JOIN workspaces t ON t.workspace_id = d.target_id
        LEFT JOIN generations g ON g.workspace_id = d.target_id AND g.superseded_at IS NULL
        WHERE d.delegation_id = %s
        """,
        [delegation_id],
    )
    found = await cursor.fetchone()
    if found is None:
        return None
    (kind, state, created_at, attempt, failures, not_before, target_generation, progressed_at, idempotent,
     stalled, dead_lettered, target_id, size, source_deleted, target_deleted, generation, reachable,
     address, url, now) = found  # fmt: skip
    return DelegationRow(
        delegation=Delegation(
            type=DelegationType(kind),
            state=DelegationState(state),
            created_at=created_at,
            attempt=attempt,
            connect_failures=failures,
            not_before=not_before,
            target_generation=target_generation,
            progressed_at=progressed_at,
            idempotent=idempotent,
            stalled=stalled,
            dead_lettered=dead_lettered,
            source_deleted=source_deleted,
            receiver=Receiver(deleted=target_deleted, generation=generation, reachable=bool(reachable)),
        ),
        target_id=target_id,
        task_bytes=size,
        address=address,
        url=url,
        now=now,
    )


async def read_task(conn: Connection, delegation_id: str) -> str:
    """The text of the task; empty if the delegation does not exist."""
    cursor = await conn.execute("SELECT task FROM delegations WHERE delegation_id = %s", [delegation_id])
    row = await cursor.fetchone()
    return "" if row is None else str(row[0])
