"""Marking boxes whose heartbeats are stale."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.registration.heartbeats import mark_stale
from tests.database import migrated_database

pytestmark = pytest.mark.anyio

STALE = timedelta(seconds=90)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "beats")


@pytest.fixture
async def committing(database: str) -> AsyncIterator[Connection]:
    """A connection whose changes other sessions see."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("TRUNCATE workspaces, workspace_outbox CASCADE")
        yield conn


@pytest.fixture
async def conn(committing: Connection) -> AsyncIterator[Connection]:
    """A connection in one transaction, so that `now()` is constant on a slow machine."""
    async with committing.transaction():
        yield committing


async def _box(
    conn: Connection,
    name: str,
    *,
    silent_for: int,
    intent: str = "run",
    generation: int = 1,
    beat_of: int = 1,
) -> None:
    await conn.execute(
        "INSERT INTO workspaces (workspace_id, intent, generation) VALUES (%s, %s, %s)",
        [name, intent, generation],
    )
    await conn.execute(
        "INSERT INTO generations (workspace_id, generation, key_id, spec) VALUES (%s, %s, 'k1', '{}')",
        [name, generation],
    )
    await conn.execute(
        "INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at) VALUES (%s, %s, now() - %s)",
        [name, beat_of, timedelta(seconds=silent_for)],
    )


async def _facts(conn: Connection) -> list[tuple[str, int, str]]:
    cursor = await conn.execute(
        "SELECT workspace_id, generation, kind FROM workspace_outbox ORDER BY workspace_id"
    )
    return [(row[0], row[1], row[2]) for row in await cursor.fetchall()]


async def test_stale_heartbeats_are_reported_once(conn: Connection) -> None:
    await _box(conn, "fresh", silent_for=89)
    await _box(conn, "silent", silent_for=91)
    assert await mark_stale(conn, older_than=STALE, limit=10) == 1
    assert await mark_stale(conn, older_than=STALE, limit=10) == 0
    assert await _facts(conn) == [("silent", 1, "stale")]


async def test_boxes_without_expected_heartbeats_are_not_stale(conn: Connection) -> None:
    await _box(conn, "stopped", silent_for=200, intent="stop")
    await _box(conn, "replaced", silent_for=200, generation=2, beat_of=1)
    await _box(conn, "new", silent_for=0)
    await conn.execute("UPDATE heartbeats SET last_heartbeat_at = NULL WHERE workspace_id = 'new'")
    assert await mark_stale(conn, older_than=STALE, limit=10) == 0
    assert await _facts(conn) == []


async def test_concurrent_scans_share_the_work(committing: Connection, database: str) -> None:
    for number in range(20):
        await _box(committing, f"w-{number:02}", silent_for=100 + number)

    async def scan() -> int:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as own:
            return await mark_stale(own, older_than=STALE, limit=10)

    assert sum(await asyncio.gather(*(scan() for _ in range(4)))) == 20
    assert len(await _facts(committing)) == len(set(await _facts(committing))) == 20
