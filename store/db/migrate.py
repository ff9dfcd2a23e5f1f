"""Applies the numbered migrations in `migrations/` to a database, each in one transaction.

    MigrationError
     ├── MigrationChanged     an applied file has changed: restore it and add a new one
     └── DatabaseIsNewer      the database has a migration that this code does not have: deploy newer code

There are no downgrades. The caller retries while the server is unavailable.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

LOCK_KEY = 0x6F6E65626F78
"""The advisory lock that serializes runs of `migrate`: "onebox" in ASCII."""

LOCK_TIMEOUT = "60s"
"""Longer than any migration takes: a hanging run makes the others fail instead of wait forever."""

_FILE_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The database cannot be migrated. Nothing was changed."""


class MigrationChanged(MigrationError):
    """An applied migration differs from its file in this code."""


class DatabaseIsNewer(MigrationError):
    """The database has migrations that this code does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One SQL file, applied in one transaction."""

    number: int
    name: str
    sql: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """The hash of the file, as stored in `schema_migrations`."""
        return hashlib.sha256(self.sql).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """The migrations of this code, in order."""
    found = [
        Migration(number=int(match[1]), name=entry.name.removesuffix(".sql"), sql=entry.read_bytes())
        for entry in resources.files("store.db").joinpath("migrations").iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.number))


async def migrate(url: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply the missing migrations and return their names. Concurrent runs wait for each other.

    Raises `MigrationError`, and psycopg's errors if the server is unavailable.
    """
    known = migrations() if known is None else known
    async with await AsyncConnection.connect(
        url, autocommit=True, connect_timeout=3, application_name="onebox-migrate"
    ) as conn:
        await conn.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        # A session lock: PostgreSQL releases it with the connection, even if this process is killed.
        await conn.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            " number integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now())"
        )
        missing = _missing(known, await _applied(conn))
        for migration in missing:
            async with conn.transaction():
                await conn.execute(migration.sql)
                await conn.execute(
                    "INSERT INTO schema_migrations (number, name, sha256) VALUES (%s, %s, %s)",
                    [migration.number, migration.name, migration.sha256],
                )
        return [migration.name for migration in missing]


async def pending(conn: AsyncConnection[TupleRow]) -> tuple[str, ...]:
    """The migrations that the database lacks. It may be newer: old code still serves during an upgrade."""
    cursor = await conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    applied = set(await _applied(conn)) if row is not None and row[0] else set[int]()
    return tuple(migration.name for migration in migrations() if migration.number not in applied)


async def unexpected(conn: AsyncConnection[TupleRow]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The applied migrations that this code does not have, and those whose files differ."""
    cursor = await conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return (), ()
    known = {migration.number: migration for migration in migrations()}
    applied = await _applied(conn)
    unknown = tuple(name for number, (name, _) in applied.items() if number not in known)
    changed = tuple(
        name
        for number, (name, sha256) in applied.items()
        if number in known and (known[number].name, known[number].sha256) != (name, sha256)
    )
    return unknown, changed


async def _applied(conn: AsyncConnection[TupleRow]) -> dict[int, tuple[str, str]]:
    cursor = await conn.execute("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
    return {number: (name, sha256) async for number, name, sha256 in cursor}


def _missing(known: Sequence[Migration], applied: dict[int, tuple[str, str]]) -> list[Migration]:
    newer = [name for number, (name, _) in applied.items() if all(number != one.number for one in known)]
    if newer:
        raise DatabaseIsNewer(f"the database has migrations that this code lacks: {', '.join(newer)}")
    for migration in known:
        name, sha256 = applied.get(migration.number, (migration.name, migration.sha256))
        if (name, sha256) != (migration.name, migration.sha256):
            raise MigrationChanged(
                f"migration {migration.name} differs from {name} as applied: restore it and add a new one"
            )
    return [migration for migration in known if migration.number not in applied]
