"""The ledger of delegations: every write, each conditional on what it follows from.

Which change is right is decided elsewhere; here no change can undo a later one, or one that is final.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from store.db.pool import Connection
from workflows.delegation.rules import Delegation, DelegationState, DelegationType, Receiver, predecessors

TASK_PREVIEW_CHARS = 200
"""Characters of a task in a listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelegation:
    """A delegation to be written down."""

    delegation_id: str
    type: DelegationType
    source_id: str | None
    target_id: str
    task: str
    idempotency_key: str | None = None
    idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationRecord:
    """A delegation that stands in the ledger already."""

    delegation_id: str
    type: str
    source_id: str | None
    target_id: str
    same_task: bool
    state: str
    target_generation: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationRow:
    """A row, and the record's word on source and target when it was read."""

    delegation: Delegation
    target_id: str
    task_bytes: int
    address: str | None
    url: str | None
    now: datetime


async def create(conn: Connection, new: NewDelegation) -> DelegationRecord | None:
    """Insert it and have its workflow started; the one that stands there, if it was inserted before.

    That is one with the same ID or, of the same source, with the same idempotency key.
    """
    cursor = await conn.execute(
        """
        WITH made AS (
            INSERT INTO delegations
                (delegation_id, type, source_id, target_id, task, idempotency_key, idempotent)
            VALUES (%(delegation_id)s, %(type)s, %(source_id)s, %(target_id)s, %(task)s, %(key)s,
                    %(idempotent)s)
            ON CONFLICT DO NOTHING RETURNING delegation_id
        )
        , told AS (
            -- the control plane asks its own questions itself
            INSERT INTO delegation_outbox (delegation_id) SELECT delegation_id FROM made WHERE %(type)s <>
            'canary'
        )
        SELECT delegation_id FROM made
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
    # A statement of its own: the one above has waited for the other insert, and does not see it.
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
    """The delegation, or None."""
    cursor = conn.cursor(row_factory=class_row(DelegationRecord))
    await cursor.execute(
        """
        SELECT delegation_id, type, source_id, target_id, true AS same_task, state, target_generation
        FROM delegations WHERE delegation_id = %s
        """,
        [delegation_id],
    )
    return await cursor.fetchone()


async def read(conn: Connection, delegation_id: str) -> DelegationRow | None:
    """The delegation as decisions need it."""
    cursor = await conn.execute(
        """
        SELECT d.type, d.state, d.created_at, d.attempts, d.connect_failures, d.next_attempt_at,
        d.target_generation,
               d.progressed_at, d.idempotent, d.stalled, d.dead_lettered, d.target_id, octet_length(d.task),
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
    (kind, state, created_at, attempt, tries, not_before, target_generation, progressed_at, idempotent,
     stalled, held, target_id, size, source_deleted, target_deleted, generation, reachable, address, url,
     now) = found  # fmt: skip
    return DelegationRow(
        delegation=Delegation(
            type=DelegationType(kind),
            state=DelegationState(state),
            created_at=created_at,
            attempt=attempt,
            connect_failures=tries,
            not_before=not_before,
            target_generation=target_generation,
            progressed_at=progressed_at,
            idempotent=idempotent,
            stalled=stalled,
            dead_lettered=held,
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
    """The work itself."""
    cursor = await conn.execute("SELECT task FROM delegations WHERE delegation_id = %s", [delegation_id])
    row = await cursor.fetchone()
    return "" if row is None else str(row[0])


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
    """The target's box said so, or took it: move forward. In a transaction of the caller's.

    Only the current generation's word counts, and only about what was sent to it: the generation is held
    against being superseded meanwhile. `attempt` is the one that was seen before it was sent; None where the
    box speaks by itself.
    """
    moved = await conn.execute(
        """
        WITH current AS MATERIALIZED (
            SELECT g.workspace_id FROM generations g JOIN delegations d ON d.target_id = g.workspace_id
            WHERE d.delegation_id = %(id)s AND g.generation = %(generation)s AND g.superseded_at IS NULL
            FOR NO KEY UPDATE OF g -- not shared: who has processed something writes it next
        )
        UPDATE delegations d
        SET state = %(new_state)s, target_generation = %(generation)s, connect_failures = 0,
        next_attempt_at = NULL,
            stalled = false, dead_lettered = false, attempts = d.attempts + CASE d.state WHEN 'queued' THEN
            1 ELSE 0 END,
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
    """The source of a recorded delegation says how far it is: nobody else knows."""
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
    """The box said again that it works on it: it is not stalled. Whether it was."""
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
    """The box was not reached: try again later."""
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
    """The box did not take it: that was one attempt."""
    await conn.execute(
        """
        UPDATE delegations
        SET attempts = attempts + 1, connect_failures = 0, next_attempt_at = now() + %s, error_code = %s,
        error = %s
        WHERE delegation_id = %s AND state = 'queued' AND attempts = %s
        """,
        [retry_after, code, error, delegation_id, attempt],
    )


async def requeue(conn: Connection, delegation_id: str, *, generation: int | None, attempt: int) -> bool:
    """Its box was replaced: queue it again, if nothing was heard of it since."""
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
    """It is a dead letter, if nothing was heard of it since."""
    await conn.execute(
        "UPDATE delegations SET dead_lettered = true WHERE delegation_id = %s AND state = 'queued'"
        " AND attempts = %s",
        [delegation_id, attempt],
    )


async def mark_stalled(conn: Connection, delegation_id: str, *, progressed_at: datetime | None) -> None:
    """Nothing was heard of it for too long, if nothing was heard since."""
    await conn.execute(
        """
        UPDATE delegations SET stalled = true
        WHERE delegation_id = %s AND state IN ('acked', 'in_progress')
          AND progressed_at IS NOT DISTINCT FROM %s
        """,
        [delegation_id, progressed_at],
    )


async def resend(conn: Connection, delegation_id: str) -> bool:
    """A human's word: a dead letter gets its attempts anew."""
    moved = await conn.execute(
        """
        UPDATE delegations SET dead_lettered = false, attempts = 0, connect_failures = 0, next_attempt_at =
        NULL
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
    """End it without its having been processed; not if an attempt has begun since `attempt` was seen."""
    moved = await conn.execute(
        """
        UPDATE delegations SET state = %s, error_code = %s, error = %s, ended_at = now(), dead_lettered =
        false
        WHERE delegation_id = %s AND state = ANY(%s) AND attempts = coalesce(%s, attempts)
        """,
        [new_state, code, error, delegation_id, list(predecessors(new_state)), attempt],
    )
    return moved.rowcount == 1


async def cancel_canaries(conn: Connection, workspace_id: str) -> None:
    """The box that the control plane asked is gone."""
    # The generation before the delegation, as everywhere: in the other order two of them wait for each other.
    await conn.execute(
        "SELECT FROM generations WHERE workspace_id = %s AND superseded_at IS NULL FOR UPDATE", [workspace_id]
    )
    await conn.execute(
        """
        UPDATE delegations SET state = 'canceled', error_code = 'target_replaced', ended_at = now()
        WHERE target_id = %s AND type = 'canary' AND ended_at IS NULL
        """,
        [workspace_id],
    )
