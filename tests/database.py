"""Databases for tests: one server per session, one migrated database per module."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.postgres import Postgres
from devstack.processes import ChildFailed, free_port
from store.db.migrate import Migration, migrate
from store.db.pool import Pool, open_pool

PATIENCE_SECONDS = 120.0

PATIENCE = timedelta(minutes=1)
"""A timeout that only a bug reaches, however slow the machine is."""


@contextmanager
def server(directory: Path) -> Iterator[Postgres]:
    """A PostgreSQL server without durability."""
    postgres = _started(directory)
    try:
        yield postgres
    finally:
        postgres.stop()


def _started(directory: Path) -> Postgres:
    """Start the server. While it creates its cluster, another process may take the port: then use another."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    postgres = Postgres(directory, port=free_port(), fsync=False)
    while True:
        try:
            postgres.start()
        except ChildFailed as error:
            taken = "Address already in use" in str(error)
            if time.monotonic() > deadline or not (taken or postgres.running):
                postgres.kill()
                raise
            if taken:
                postgres.kill()
                postgres = Postgres(directory, port=free_port(), fsync=False)
        else:
            return postgres


def empty_database(postgres: Postgres, name: str) -> str:
    """The URL of a new database without a schema."""
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return postgres.url.rpartition("/")[0] + "/" + name


def migrated_database(postgres: Postgres, name: str) -> str:
    """The URL of a new database with the schema."""
    url = empty_database(postgres, name)
    asyncio.run(patiently_migrate(url))
    return url


async def patiently_migrate(url: str, known: Sequence[Migration] | None = None) -> None:
    """Migrate, with retries while the server is unavailable, as the command does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            await migrate(url, known)
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


@asynccontextmanager
async def patient_pool(url: str, *, maximum: int) -> AsyncIterator[Pool]:
    """A pool with long timeouts, so that a slow machine is not an outage. Production uses 2 s to 5 s."""
    async with open_pool(
        url,
        maximum=maximum,
        statement_timeout=PATIENCE,
        lock_timeout=PATIENCE,
        checkout_timeout=PATIENCE,
    ) as pool:
        yield pool
