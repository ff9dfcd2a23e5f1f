"""Writes of register calls: the generation's tokens, and what the box reports about itself.

Callers lock the generation with `lock_current` in the same transaction.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from store.db.pool import Connection
from store.outbox import delegation_wakeups

LIVE_STATES = ("pending", "active", "retiring")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRow:
    """A live token. `unused_for` is the time since its last use or, without one, its creation."""

    token_id: UUID
    state: str
    key_id: str
    nonce: bytes | None = field(repr=False)
    unused_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRows:
    """The live tokens of a generation, and the number of recent tokens other than its first."""

    live: tuple[TokenRow, ...]
    successors: int


# The time of the statement: the transaction may have waited for a lock before it.
_LIVE_TOKENS = """
SELECT token_id, state, key_id, nonce,
       statement_timestamp() - COALESCE(last_used_at, created_at) AS unused_for
FROM tokens
WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s AND state = ANY(%(live)s)
"""

_SUCCESSORS = """
SELECT count(*) FROM tokens t
WHERE t.workspace_id = %(workspace_id)s AND t.generation = %(generation)s
  AND t.created_at > statement_timestamp() - %(window)s
  AND EXISTS (SELECT FROM tokens earlier
              WHERE earlier.workspace_id = t.workspace_id AND earlier.generation = t.generation
                AND earlier.created_at < t.created_at)
"""

_REGISTERED = """
WITH before AS (
    SELECT registered_at FROM generations
    WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s
), written AS (
    UPDATE generations
    SET url = COALESCE(NULLIF(%(url)s::text, ''), url),
        agent_card = COALESCE(%(agent_card)s::jsonb, agent_card),
        delivery_mode = COALESCE(%(delivery_mode)s::text, delivery_mode),
        registered_at = COALESCE(registered_at, now()),
        last_register_at = now()
    WHERE workspace_id = %(workspace_id)s AND generation = %(generation)s AND superseded_at IS NULL
    RETURNING generation
), event AS (
    INSERT INTO workspace_outbox (workspace_id, generation, kind)
    SELECT %(workspace_id)s, written.generation, 'registered'
    FROM written, before WHERE before.registered_at IS NULL
)
SELECT before.registered_at IS NULL FROM before
"""


async def lock_current(conn: Connection, workspace_id: str) -> int | None:
    """Lock the current generation until the transaction ends, and return its number.

    None if there is none, or if it was superseded while this call waited for the lock.
    """
    cursor = await conn.execute(
        "SELECT generation FROM generations WHERE workspace_id = %s AND superseded_at IS NULL FOR UPDATE",
        [workspace_id],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def read_tokens(
    conn: Connection, workspace_id: str, *, generation: int, window: timedelta
) -> TokenRows:
    """The live tokens of a generation. Successors are counted within the window."""
    names = {
        "workspace_id": workspace_id,
        "generation": generation,
        "live": list(LIVE_STATES),
        "window": window,
    }
    async with conn.cursor(row_factory=class_row(TokenRow)) as cursor:
        await cursor.execute(_LIVE_TOKENS, names)
        live = await cursor.fetchall()
    counted = await (await conn.execute(_SUCCESSORS, names)).fetchone()
    return TokenRows(live=tuple(live), successors=0 if counted is None else counted[0])


async def use_token(conn: Connection, token_id: UUID) -> None:
    """Record a use of the token. A pending token becomes active, and its nonce is deleted."""
    await conn.execute(
        "UPDATE tokens SET last_used_at = now(), nonce = NULL,"
        " state = CASE state WHEN 'pending' THEN 'active' ELSE state END"
        " WHERE token_id = %s AND state = ANY(%s)",
        [token_id, list(LIVE_STATES)],
    )


async def revoke_others(conn: Connection, workspace_id: str, *, generation: int, keep: UUID) -> None:
    """Revoke the generation's live tokens except `keep`."""
    await conn.execute(
        "UPDATE tokens SET state = 'revoked', revoked_at = now(), nonce = NULL"
        " WHERE workspace_id = %s AND generation = %s AND token_id <> %s AND state = ANY(%s)",
        [workspace_id, generation, keep, list(LIVE_STATES)],
    )


async def revoke_pending(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Revoke the pending token, which can no longer be derived."""
    await conn.execute(
        "UPDATE tokens SET state = 'revoked', revoked_at = now(), nonce = NULL"
        " WHERE workspace_id = %s AND generation = %s AND state = 'pending'",
        [workspace_id, generation],
    )


async def retire_active(conn: Connection, workspace_id: str, *, generation: int) -> None:
    """Mark the active token as retiring: it stays live until its successor is used."""
    await conn.execute(
        "UPDATE tokens SET state = 'retiring'"
        " WHERE workspace_id = %s AND generation = %s AND state = 'active'",
        [workspace_id, generation],
    )


async def insert_token(
    conn: Connection,
    workspace_id: str,
    *,
    generation: int,
    sha256: bytes,
    prefix: str,
    key_id: str,
    nonce: bytes,
) -> None:
    """Insert a pending token."""
    await conn.execute(
        "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, nonce)"
        " VALUES (%s, %s, 'pending', %s, %s, %s, %s)",
        [workspace_id, generation, sha256, prefix, key_id, nonce],
    )


async def record_registration(
    conn: Connection,
    workspace_id: str,
    *,
    generation: int,
    url: str,
    agent_card: dict[str, JsonValue] | None,
    delivery_mode: str | None,
) -> bool:
    """Store what the box reports, if its generation is current. Returns whether it is its first call.

    Members that are omitted keep their stored values.
    """
    cursor = await conn.execute(
        _REGISTERED,
        {
            "workspace_id": workspace_id,
            "generation": generation,
            "url": url,
            "agent_card": None if agent_card is None else Jsonb(agent_card),
            "delivery_mode": delivery_mode,
        },
    )
    row = await cursor.fetchone()
    first = row is not None and bool(row[0])
    if first or url:
        await delegation_wakeups.enqueue_queued(conn, workspace_id)
    return first


async def record_card(
    conn: Connection, workspace_id: str, *, generation: int, agent_card: dict[str, JsonValue]
) -> None:
    """Store the agent card if the generation is the current one."""
    await conn.execute(
        "UPDATE generations SET agent_card = %s"
        " WHERE workspace_id = %s AND generation = %s AND superseded_at IS NULL",
        [Jsonb(agent_card), workspace_id, generation],
    )
