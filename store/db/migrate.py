"""Bringing a database to the schema of this code, one numbered file after the other.

    MigrationError
     ├── MigrationChanged     an applied file is not what it was: restore it, add a new one
     └── DatabaseIsNewer      the database knows a migration that this code does not: deploy newer code

Never goes backwards, and never waits for a server that is not up: when to try again is the caller's matter.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

LOCK_KEY = 0x6F6E65626F78
"""The advisory lock that runs of `migrate` take one after the other: "onebox" in ASCII."""

LOCK_TIMEOUT = "60s"
"""Longer than any run of ours before this one; a run that hangs must not hang all others silently."""

_FILE_NAME = re.compile(r"([0-9]{4})_[a-z0-9_]+\.sql")


class MigrationError(Exception):
    """The database cannot be brought to this code's schema; nothing was changed."""


class MigrationChanged(MigrationError):
    """An applied migration differs from the file that this code carries."""


class DatabaseIsNewer(MigrationError):
    """The database has migrations that this code does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of SQL, applied in one transaction."""

    number: int
    name: str
    sql: bytes = field(repr=False)

    @property
    def sha256(self) -> str:
        """What the database remembers the file by."""
        return hashlib.sha256(self.sql).hexdigest()


def migrations() -> tuple[Migration, ...]:
    """The files that this code carries, in the order of their numbers."""
    found = [
        Migration(number=int(match[1]), name=entry.name.removesuffix(".sql"), sql=entry.read_bytes())
        for entry in resources.files("store.db").joinpath("migrations").iterdir()
        if (match := _FILE_NAME.fullmatch(entry.name))
    ]
    return tuple(sorted(found, key=lambda migration: migration.number))


async def migrate(url: str, known: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing, and return the names; concurrent runs wait for one another.

    Raises `MigrationError`, and psycopg's errors if the server is not there.
    """
    known = migrations() if known is None else known
    async with await AsyncConnection.connect(
        url, autocommit=True, connect_timeout=3, application_name="onebox-migrate"
    ) as conn:
        await conn.execute("SELECT set_config('lock_timeout', %s, false)", [LOCK_TIMEOUT])
        # Held by the session: it ends with the connection, also when this process is killed.
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
    """The names of migrations that this code needs and the database does not have.

    A database that is ahead is fine here: during a rollout the old code still serves.
    """
    cursor = await conn.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
    row = await cursor.fetchone()
    there = set(await _applied(conn)) if row is not None and row[0] else set[int]()
    return tuple(migration.name for migration in migrations() if migration.number not in there)


async def unexpected(conn: AsyncConnection[TupleRow]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The applied migrations that this code does not know, and those that it has otherwise."""
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
        raise DatabaseIsNewer(f"the database has migrations that this code does not know: {', '.join(newer)}")
    for migration in known:
        name, sha256 = applied.get(migration.number, (migration.name, migration.sha256))
        if (name, sha256) != (migration.name, migration.sha256):
            raise MigrationChanged(
                f"migration {migration.name} is not what was applied as {name}: restore it, and add a new one"
            )
    return [migration for migration in known if migration.number not in applied]
