"""Writes of delegations. Each is conditional on the state that it follows from.

`workflows.delegation.rules` decides which change is due. No write here undoes a later one or changes a final
state.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection
from workflows.delegation.rules import DelegationState, DelegationType, predecessors

TASK_PREVIEW_CHARS = 200
"""Characters of a task in a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelegation:
    """A delegation to insert."""

    delegation_id: str
    type: DelegationType
    source_id: str | None
    target_id: str
    task: str
    idempotency_key: str | None = None
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationRecord:
    """A stored delegation, for comparison with a new one."""

    delegation_id: str
    type: str
    source_id: str | None
    target_id: str
    same_task: bool
    state: str
    target_generation: int | None


async def create(conn: Connection, new: NewDelegation) -> DelegationRecord | None:
    """Insert a delegation and wake its workflow. Returns the stored one if it exists already.

    It exists if one has the same ID, or the same source and idempotency key.
    """
    cursor = await conn.execute(
        """
        WITH inserted AS (
            INSERT INTO delegations
                (delegation_id, type, source_id, target_id, task, idempotency_key, idempotent)
            VALUES (%(delegation_id)s, %(type)s, %(source_id)s, %(target_id)s, %(task)s, %(key)s,
                    %(idempotent)s)
            ON CONFLICT DO NOTHING RETURNING delegation_id
        )
        , woken AS (
            -- canaries have no workflow
            INSERT INTO delegation_outbox (delegation_id)
            SELECT delegation_id FROM inserted WHERE %(type)s <> 'canary'
        )
        SELECT delegation_id FROM inserted
        """,
        {
            "delegation_id": new.delegation_id,
            "type": new.type,
            "source_id": new.source_id,
            "target_id": new.target_id,
            "task": new.task,
            "key": new.idempotency_key,
            "idempotent": new.idempotent,
        },
    )
    if await cursor.fetchone() is not None:
        return None
    # A second statement: the first one waited for a concurrent insert but does not see it.
    known = conn.cursor(row_factory=class_row(DelegationRecord))
    await known.execute(
        """
        SELECT delegation_id, type, source_id, target_id, task = %(task)s AS same_task, state,
               target_generation
        FROM delegations
        WHERE (source_id = %(source_id)s AND idempotency_key = %(key)s) OR delegation_id = %(delegation_id)s
        ORDER BY delegation_id = %(delegation_id)s LIMIT 1
        """,
        {
            "delegation_id": new.delegation_id,
            "source_id": new.source_id,
            "key": new.idempotency_key,
            "task": new.task,
        },
    )
    return await known.fetchone()


async def find(conn: Connection, delegation_id: str) -> DelegationRecord | None:
    """The delegation; None if it does not exist."""
    cursor = conn.cursor(row_factory=class_row(DelegationRecord))
    await cursor.execute(
        """
        SELECT delegation_id, type, source_id, target_id, true AS same_task, state, target_generation
        FROM delegations WHERE delegation_id = %s
        """,
        [delegation_id],
    )
    return await cursor.fetchone()


async def record_progress(
    conn: Connection,
    delegation_id: str,
    new_state: DelegationState,
    *,
    generation: int,
    attempt: int | None,
    error_code: str | None = None,
    error: str | None = None,
    preview: str | None = None,
) -> bool:
    """Move the delegation forward, as the target's box reported or accepted it. Needs a transaction.

    Only the current generation may report, and only about what was delivered to it. The generation is locked
    until the transaction ends. `attempt` is the one read before the delivery; None for a report of the box.
    """
    moved = await conn.execute(
        """
        WITH current AS MATERIALIZED (
            SELECT g.workspace_id FROM generations g JOIN delegations d ON d.target_id = g.workspace_id
            WHERE d.delegation_id = %(id)s AND g.generation = %(generation)s AND g.superseded_at IS NULL
            FOR NO KEY UPDATE OF g -- not FOR SHARE: `record_processed` updates the row next
        )
        UPDATE delegations d
        SET state = %(new_state)s, target_generation = %(generation)s, connect_failures = 0,
            next_attempt_at = NULL, stalled = false, dead_lettered = false,
            attempts = d.attempts + CASE d.state WHEN 'queued' THEN 1 ELSE 0 END,
            delivered_at = coalesce(d.delivered_at, now()),
            progressed_at = CASE WHEN %(new_state)s = 'delivered' THEN d.progressed_at ELSE now() END,
            error_code = %(error_code)s, error = %(error)s,
            response_preview = coalesce(%(preview)s, d.response_preview),
            ended_at = CASE WHEN %(ends)s THEN now() END
        FROM current
        WHERE d.delegation_id = %(id)s AND d.state = ANY(%(before)s)
          AND (d.state = 'queued' AND d.attempts = coalesce(%(attempt)s, d.attempts)
               OR d.state <> 'queued' AND d.target_generation = %(generation)s
                  AND d.attempts = coalesce(%(attempt)s + 1, d.attempts))
        """,
        {
            "id": delegation_id,
            "generation": generation,
            "new_state": new_state,
            "before": list(predecessors(new_state)),
            "ends": new_state in _FINAL_STATES,
            "attempt": attempt,
            "error_code": error_code,
            "error": error,
            "preview": preview,
        },
    )
    return moved.rowcount == 1


_FINAL_STATES = (
    DelegationState.PROCESSED,
    DelegationState.FAILED,
    DelegationState.EXPIRED,
    DelegationState.CANCELED,
)


async def record_source_report(
    conn: Connection,
    delegation_id: str,
    new_state: DelegationState,
    *,
    source_id: str,
    error: str | None = None,
    preview: str | None = None,
) -> bool:
    """Move a `record` delegation forward, as its source reported."""
    moved = await conn.execute(
        """
        UPDATE delegations
        SET state = %(new_state)s, progressed_at = now(), error = %(error)s,
            response_preview = coalesce(%(preview)s, response_preview),
            ended_at = CASE WHEN %(ends)s THEN now() END
        WHERE delegation_id = %(id)s AND type = 'record' AND source_id = %(source_id)s
          AND state = ANY(%(before)s)
        """,
        {
            "id": delegation_id,
            "source_id": source_id,
            "new_state": new_state,
            "before": list(predecessors(new_state)),
            "ends": new_state in _FINAL_STATES,
            "error": error,
            "preview": preview,
        },
    )
    return moved.rowcount == 1


async def refresh_progress(conn: Connection, delegation_id: str, *, generation: int) -> bool:
    """Record a repeated progress report, which ends a stall. Returns whether it was stalled."""
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT delegation_id, stalled FROM delegations
            WHERE delegation_id = %s AND target_generation = %s AND state IN ('acked', 'in_progress')
            FOR NO KEY UPDATE
        )
        UPDATE delegations d SET progressed_at = now(), stalled = false
        FROM before WHERE d.delegation_id = before.delegation_id RETURNING before.stalled
        """,
        [delegation_id, generation],
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def record_unreachable(
    conn: Connection, delegation_id: str, *, attempt: int, retry_after: timedelta
) -> None:
    """Record that the box could not be reached, and when to retry."""
    await conn.execute(
        """
        UPDATE delegations SET connect_failures = connect_failures + 1, next_attempt_at = now() + %s
        WHERE delegation_id = %s AND state = 'queued' AND attempts = %s
        """,
        [retry_after, delegation_id, attempt],
    )


async def record_refusal(
    conn: Connection, delegation_id: str, *, attempt: int, code: str, error: str, retry_after: timedelta
) -> None:
    """Record a rejected delivery as an attempt, and when to retry."""
    await conn.execute(
        """
        UPDATE delegations
        SET attempts = attempts + 1, connect_failures = 0, next_attempt_at = now() + %s,
            error_code = %s, error = %s
        WHERE delegation_id = %s AND state = 'queued' AND attempts = %s
        """,
        [retry_after, code, error, delegation_id, attempt],
    )


async def requeue(conn: Connection, delegation_id: str, *, generation: int | None, attempt: int) -> bool:
    """Queue the delegation again after its box was replaced, unless it has changed since it was read."""
    moved = await conn.execute(
        """
        UPDATE delegations
        SET state = 'queued', target_generation = NULL, delivered_at = NULL, progressed_at = NULL,
            stalled = false, connect_failures = 0, next_attempt_at = NULL
        WHERE delegation_id = %s AND target_generation IS NOT DISTINCT FROM %s AND attempts = %s
          AND state IN ('delivered', 'acked', 'in_progress')
        """,
        [delegation_id, generation, attempt],
    )
    return moved.rowcount == 1


async def dead_letter(conn: Connection, delegation_id: str, *, attempt: int) -> None:
    """Mark it as a dead letter, unless it has changed since it was read."""
    await conn.execute(
        "UPDATE delegations SET dead_lettered = true WHERE delegation_id = %s AND state = 'queued'"
        " AND attempts = %s",
        [delegation_id, attempt],
    )


async def mark_stalled(conn: Connection, delegation_id: str, *, progressed_at: datetime | None) -> None:
    """Mark it as stalled, unless it has made progress since it was read."""
    await conn.execute(
        """
        UPDATE delegations SET stalled = true
        WHERE delegation_id = %s AND state IN ('acked', 'in_progress')
          AND progressed_at IS NOT DISTINCT FROM %s
        """,
        [delegation_id, progressed_at],
    )


async def resend(conn: Connection, delegation_id: str) -> bool:
    """Reset the attempts of a dead letter, on an operator's command."""
    moved = await conn.execute(
        """
        UPDATE delegations
        SET dead_lettered = false, attempts = 0, connect_failures = 0, next_attempt_at = NULL
        WHERE delegation_id = %s AND state = 'queued' AND ended_at IS NULL
        """,
        [delegation_id],
    )
    return moved.rowcount == 1


async def end(
    conn: Connection,
    delegation_id: str,
    new_state: DelegationState,
    *,
    code: str,
    error: str,
    attempt: int | None,
) -> bool:
    """End it unprocessed, unless an attempt has been recorded since `attempt` was read."""
    moved = await conn.execute(
        """
        UPDATE delegations
        SET state = %s, error_code = %s, error = %s, ended_at = now(), dead_lettered = false
        WHERE delegation_id = %s AND state = ANY(%s) AND attempts = coalesce(%s, attempts)
        """,
        [new_state, code, error, delegation_id, list(predecessors(new_state)), attempt],
    )
    return moved.rowcount == 1


async def cancel_canaries(conn: Connection, workspace_id: str) -> None:
    """Cancel open canaries: their box was replaced."""
    # Lock order: the generation before the delegation, as everywhere. The other order could deadlock.
    await conn.execute(
        "SELECT FROM generations WHERE workspace_id = %s AND superseded_at IS NULL FOR UPDATE", [workspace_id]
    )
    await conn.execute(
        """
        UPDATE delegations SET state = 'canceled', error_code = 'target_replaced', ended_at = now()
        WHERE target_id = %s AND type = 'canary'
          AND state IN ('queued', 'delivered', 'acked', 'in_progress') -- not ended_at: the index is on states
        """,
        [workspace_id],
    )
