"""Databases for tests: one server for a session, one migrated database for a module."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from devstack.postgres import Postgres
from devstack.processes import free_port
from store.migrate import migrate


@contextmanager
def server(directory: Path) -> Iterator[Postgres]:
    """A server whose data may be lost."""
    with Postgres(directory, port=free_port(), fsync=False) as postgres:
        yield postgres


def empty_database(postgres: Postgres, name: str) -> str:
    """The URL of a new database without a schema."""
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return postgres.url.rpartition("/")[0] + "/" + name


def migrated_database(postgres: Postgres, name: str) -> str:
    """The URL of a new database with the schema."""
    url = empty_database(postgres, name)
    asyncio.run(migrate(url))
    return url
