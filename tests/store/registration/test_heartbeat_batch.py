"""Batches of heartbeats: which are counted, what each writes, and what it does not wait for."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import LiteralString

import psycopg
import pytest
from psycopg.rows import DictRow, dict_row

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.registration import heartbeat_batch, heartbeats
from store.registration.caller_lookup import find_caller
from store.registration.credentials import token_hash
from store.registration.heartbeat_batch import HeartbeatInput
from store.registration.heartbeats import Heartbeat
from tests.database import migrated_database
from tests.store.delegation.ledger import open_next

pytestmark = pytest.mark.anyio

REPORTED = Heartbeat(
    active_tasks=2**31 - 1, is_busy=True, runtime_state="wedged", error_rate=0.5, sample_error="e'\\{}\"",
    current_task="t", uptime_seconds=2**53,
)  # fmt: skip


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "heartbeat_batch")


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("TRUNCATE workspaces, workspace_outbox CASCADE")
        yield conn


@pytest.fixture
async def behind(database: str) -> AsyncIterator[psycopg.AsyncConnection[DictRow]]:
    """To read and lock rows."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as conn:
        yield conn


async def box(conn: Connection, name: str) -> HeartbeatInput:
    """A heartbeat that only updates the row of a healthy box. The last one was an hour ago."""
    await conn.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [name])
    async with conn.transaction():
        await open_next(conn, name, 1)
    await conn.execute("UPDATE generations SET private_ip = '10.0.0.7' WHERE workspace_id = %s", [name])
    heartbeat = HeartbeatInput(
        workspace_id=name, sha256=token_hash(name), secret_generation=None, heartbeat=REPORTED
    )
    await conn.execute(
        "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, nonce)"
        " VALUES (%s, 1, 'pending', %s, '01234567', 'k1', 'nonce')",
        [name, heartbeat.sha256],
    )
    result = await alone(conn, replace(heartbeat, heartbeat=Heartbeat()))
    assert result is not None
    assert result.first
    await conn.execute(
        "UPDATE tokens SET last_used_at = last_used_at - interval '1 hour' WHERE workspace_id = %s", [name]
    )
    await conn.execute(
        "UPDATE heartbeats SET last_heartbeat_at = last_heartbeat_at - interval '1 hour',"
        " alive_since = '2026-01-01',"
        " unauthenticated_count = 2 WHERE workspace_id = %s",
        [name],
    )
    return heartbeat


async def alone(conn: Connection, given: HeartbeatInput) -> heartbeats.HeartbeatResult | None:
    return await heartbeats.record(
        conn,
        given.workspace_id,
        sha256=given.sha256,
        secret_generation=given.secret_generation,
        heartbeat=given.heartbeat,
    )


async def written(behind: psycopg.AsyncConnection[DictRow]) -> list[DictRow]:
    """All columns that a heartbeat changes; times as ages, rounded to half an hour."""
    cursor = await behind.execute(
        """
        SELECT b.*, t.token_id, t.state, t.nonce, t.last_used_at, t.revoked_at,
               (SELECT array_agg(f.kind ORDER BY f.event_id) FROM workspace_outbox f
                WHERE f.workspace_id = b.workspace_id) AS events
        FROM heartbeats b LEFT JOIN tokens t USING (workspace_id) ORDER BY b.workspace_id, t.token_id
        """
    )
    rows = await cursor.fetchall()
    [now] = await (await behind.execute("SELECT now()")).fetchall()
    for row in rows:
        for time in ("last_heartbeat_at", "last_used_at"):
            row[time] = row[time] and round((now["now"] - row[time]).total_seconds() / 1800)
    return rows


async def test_plain_heartbeats_are_counted_as_each_would_be_alone(
    conn: Connection, behind: psycopg.AsyncConnection[DictRow]
) -> None:
    await box(conn, "no-heartbeat")
    given = [await box(conn, f"w-{number}") for number in range(3)]
    given[1] = replace(given[1], secret_generation=1, heartbeat=Heartbeat())
    before = await written(behind)
    found = await heartbeat_batch.record_batch(conn, given)
    together = await written(behind)
    assert found == [await find_caller(conn, each.workspace_id, sha256=each.sha256) for each in given]
    assert together[0] == before[0]
    assert [
        (row["last_heartbeat_at"], row["last_used_at"], row["unauthenticated_count"]) for row in together[1:]
    ] == [(0, 0, 0)] * 3
    for each in given:
        assert await alone(conn, each) is not None
    assert await written(behind) == together


async def test_of_two_heartbeats_of_one_workspace_both_count_and_the_later_one_is_shown(
    conn: Connection, behind: psycopg.AsyncConnection[DictRow]
) -> None:
    first = await box(conn, "w")
    others = [await box(conn, f"v-{number}") for number in range(5)]
    given = [first, *others, replace(first, heartbeat=Heartbeat(current_task="later")), *others]
    found = await heartbeat_batch.record_batch(conn, given)
    assert all(found)
    assert {row["workspace_id"]: row["current_task"] for row in await written(behind)} == {
        "w": "later", **{other.workspace_id: "t" for other in others},
    }  # fmt: skip


ON_ROWS: dict[str, LiteralString] = {
    "pending token": "UPDATE tokens SET state = 'pending', nonce = 'nonce' WHERE workspace_id = %s",
    "retiring token": "UPDATE tokens SET state = 'retiring' WHERE workspace_id = %s",
    "revoked token": "UPDATE tokens SET state = 'revoked' WHERE workspace_id = %s",
    "stopped": "UPDATE workspaces SET intent = 'stop' WHERE workspace_id = %s",
    "being deleted": "UPDATE workspaces SET intent = 'delete' WHERE workspace_id = %s",
    "deleted": "UPDATE workspaces SET deleted_at = now() WHERE workspace_id = %s",
    "superseded": "UPDATE generations SET superseded_at = now() WHERE workspace_id = %s",
    "first beat": "UPDATE heartbeats SET last_heartbeat_at = NULL WHERE workspace_id = %s",
    "silent": "UPDATE heartbeats SET stale_since = now() WHERE workspace_id = %s",
    "credential lost": "UPDATE heartbeats SET credential_lost_at = now() WHERE workspace_id = %s",
    "another generation beats": "UPDATE heartbeats SET generation = 2 WHERE workspace_id = %s",
}


@pytest.mark.parametrize("state", ON_ROWS)
async def test_other_heartbeats_in_a_batch_are_left_to_the_single_row_statement(
    state: str, conn: Connection, behind: psycopg.AsyncConnection[DictRow]
) -> None:
    given = [await box(conn, "before"), await box(conn, "other"), await box(conn, "then")]
    await conn.execute(ON_ROWS[state], ["other"])
    before = await written(behind)
    found = await heartbeat_batch.record_batch(conn, given)
    after = await written(behind)
    assert [each is not None for each in found] == [True, False, True]
    assert after[1] == before[1]
    assert [row["last_heartbeat_at"] for row in after] == [0, before[1]["last_heartbeat_at"], 0]


async def test_a_token_is_invalid_in_another_workspace_or_with_the_secret_of_another_generation(
    conn: Connection, behind: psycopg.AsyncConnection[DictRow]
) -> None:
    one, two = await box(conn, "one"), await box(conn, "two")
    before = await written(behind)
    found = await heartbeat_batch.record_batch(
        conn,
        [
            replace(one, sha256=two.sha256),
            replace(one, sha256=token_hash("unknown")),
            replace(one, workspace_id="nobody"),
            replace(one, secret_generation=2),
            replace(two, secret_generation=9_999_999_999),
        ],
    )
    assert found == [None] * 5
    assert await written(behind) == before


async def test_a_locked_workspace_is_skipped_without_waiting(
    conn: Connection, behind: psycopg.AsyncConnection[DictRow]
) -> None:
    given = [await box(conn, f"w-{number}") for number in range(3)]
    await conn.execute("SET lock_timeout = '1ms'")
    for table in ("tokens", "heartbeats"):
        async with behind.transaction():
            await behind.execute(f"SELECT FROM {table} WHERE workspace_id = 'w-1' FOR UPDATE".encode())
            found = await heartbeat_batch.record_batch(conn, given)
        assert [each is not None for each in found] == [True, False, True]
    assert all(await heartbeat_batch.record_batch(conn, given))


async def test_batches_of_all_sizes_share_few_prepared_statements_which_are_not_planned_anew(
    conn: Connection,
) -> None:
    given = [await box(conn, f"w-{number}") for number in range(20)]
    small = [replace(each, heartbeat=Heartbeat(active_tasks=1, uptime_seconds=1)) for each in given]
    for size in range(1, 21):
        await heartbeat_batch.record_batch(conn, given[:size])
        await heartbeat_batch.record_batch(conn, small[:size])
    assert await _plans(conn) == [(5, 15), (5, 15)], "those with nulls only in a column, and those without"


async def _plans(conn: Connection) -> Sequence[tuple[int, int]]:
    """Custom plans and uses of the generic plan, for each prepared statement."""
    cursor = await conn.execute(
        "SELECT custom_plans, generic_plans FROM pg_prepared_statements WHERE statement LIKE '%SKIP LOCKED%'"
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]
