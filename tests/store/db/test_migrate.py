"""Migrations and the pool, with a server that stops and starts."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import count

import psycopg
import pytest

from devstack.postgres import Postgres
from store.db import migrate as migrating
from store.db.migrate import DatabaseIsNewer, Migration, MigrationChanged, migrations, pending
from store.db.pool import Pool, StoreUnavailable, connection, open_pool
from tests.database import PATIENCE, empty_database, patient_pool

pytestmark = pytest.mark.anyio

FIRST = Migration(number=1, name="0001_first", sql=b"CREATE TABLE first (); CREATE TABLE also_first ();")
SECOND = Migration(number=2, name="0002_second", sql=b"CREATE TABLE second ();")
BROKEN = Migration(number=3, name="0003_broken", sql=b"CREATE TABLE half (); SELECT nonsense;")
_numbers = count(1)


@pytest.fixture
def empty(postgres: Postgres) -> str:
    return empty_database(postgres, f"empty_{next(_numbers)}")


async def migrate(url: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Migrate as callers do: retry if a slow machine did not connect in time."""
    while True:
        try:
            return await migrating.migrate(url, known)
        except psycopg.errors.ConnectionTimeout:
            continue


async def _tables(url: str) -> set[str]:
    async with await psycopg.AsyncConnection.connect(url) as conn:
        cursor = await conn.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        )
        return {name async for (name,) in cursor}


async def test_files_are_applied_in_order_and_once(empty: str) -> None:
    assert await migrate(empty, [FIRST]) == ["0001_first"]
    assert await migrate(empty, [FIRST, SECOND]) == ["0002_second"]
    assert await migrate(empty, [FIRST, SECOND]) == []
    assert {"first", "also_first", "second"} <= await _tables(empty)


async def test_the_schema_of_this_code_is_what_is_pending_until_it_is_applied(empty: str) -> None:
    names = [migration.name for migration in migrations()]
    assert names[0] == "0001_initial"
    async with await psycopg.AsyncConnection.connect(empty, autocommit=True) as conn:
        assert await pending(conn) == tuple(names)
        assert await migrate(empty) == names
        assert await pending(conn) == ()


async def test_eight_runs_at_once_apply_each_file_once(empty: str) -> None:
    applied = await asyncio.gather(*(migrate(empty, [FIRST, SECOND]) for _ in range(8)))
    assert sorted(applied) == [[]] * 7 + [["0001_first", "0002_second"]]


async def test_a_file_that_was_changed_after_it_was_applied_is_refused(empty: str) -> None:
    await migrate(empty, [FIRST])
    with pytest.raises(MigrationChanged, match="0001_first"):
        await migrate(empty, [replace(FIRST, sql=b"CREATE TABLE other ();"), SECOND])
    with pytest.raises(MigrationChanged, match="0001_renamed"):
        await migrate(empty, [replace(FIRST, name="0001_renamed")])
    assert "second" not in await _tables(empty)


async def test_a_database_that_is_ahead_of_the_code_is_refused(empty: str) -> None:
    await migrate(empty, [FIRST, SECOND])
    with pytest.raises(DatabaseIsNewer, match="0002_second"):
        await migrate(empty, [FIRST])


async def test_a_file_that_fails_leaves_nothing_of_itself(empty: str) -> None:
    with pytest.raises(psycopg.errors.UndefinedColumn):
        await migrate(empty, [FIRST, BROKEN])
    tables = await _tables(empty)
    assert "first" in tables
    assert "half" not in tables
    assert await migrate(empty, [FIRST, SECOND]) == ["0002_second"]


async def test_a_file_and_its_row_are_one_transaction(empty: str) -> None:
    unnotable = replace(BROKEN, sql=b"CREATE TABLE half (); DROP TABLE schema_migrations;")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await migrate(empty, [unnotable])
    assert await _tables(empty) == {"schema_migrations", "schema_migrations_pkey"}


async def test_a_statement_or_a_lock_that_takes_too_long_is_unavailability(empty: str) -> None:
    limit = timedelta(milliseconds=100)
    async with open_pool(empty, statement_timeout=limit, checkout_timeout=PATIENCE) as pool:
        with pytest.raises(StoreUnavailable, match="QueryCanceled"):
            async with connection(pool) as conn:
                await conn.execute("SELECT pg_sleep(10)")
    async with (
        open_pool(empty, statement_timeout=PATIENCE, lock_timeout=limit, checkout_timeout=PATIENCE) as pool,
        await psycopg.AsyncConnection.connect(empty) as holder,
    ):
        await holder.execute("SELECT pg_advisory_lock(1)")
        with pytest.raises(StoreUnavailable, match="LockNotAvailable"):
            async with connection(pool) as conn:
                await conn.execute("SELECT pg_advisory_lock(1)")


async def test_an_invalid_statement_is_not_unavailability(empty: str) -> None:
    async with patient_pool(empty, maximum=8) as pool:
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with connection(pool) as conn:
                await conn.execute("SELECT * FROM nowhere")


async def test_a_pool_finds_a_server_that_was_killed_and_came_back(postgres: Postgres, empty: str) -> None:
    async with open_pool(empty, minimum=2, maximum=4, checkout_timeout=timedelta(seconds=1)) as pool:
        await pool.wait(PATIENCE.total_seconds())
        async with connection(pool) as conn:
            await conn.execute("SELECT 1")
        postgres.kill()
        with pytest.raises(StoreUnavailable):
            async with connection(pool) as conn:
                await conn.execute("SELECT 1")
        await asyncio.to_thread(postgres.start)
        await _until_it_answers(pool)


async def test_a_pool_opens_before_its_server_is_up(postgres: Postgres, empty: str) -> None:
    postgres.stop()
    async with open_pool(empty, checkout_timeout=timedelta(milliseconds=200)) as pool:
        with pytest.raises(StoreUnavailable, match="PoolTimeout"):
            async with connection(pool):
                pass
        await asyncio.to_thread(postgres.start)
        await _until_it_answers(pool)


async def _until_it_answers(pool: Pool) -> None:
    """The pool reconnects within seconds."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            try:
                async with connection(pool) as conn:
                    await conn.execute("SELECT 1")
            except StoreUnavailable:
                continue
            return
