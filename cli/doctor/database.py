"""Looking at PostgreSQL as the processes reach it; what it means is judged elsewhere.

Reads only, in one short session.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from cli.doctor.checks import database
from cli.doctor.checks.database import VARIABLE, DatabaseAddress, DatabaseState
from cli.doctor.model import Finding, clock_skew_seconds, failed, skipped
from store.db import migrate
from store.registration.credentials import ServerKeys
from workers.settings.api import ApiSettings
from workers.settings.worker import WorkerSettings

CONNECT_SECONDS = 10

_FORBIDDEN: LiteralString = (
    "SELECT c.relname FROM pg_class c"
    " WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p')"
    " AND c.relname <> 'schema_migrations'"
    " AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')"
    " AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))"
    " ORDER BY c.relname"
)

_KEYS: LiteralString = (
    "SELECT key_id, count(*) FROM generations WHERE superseded_at IS NULL GROUP BY key_id ORDER BY key_id"
)


def address_of(url: str) -> DatabaseAddress | None:
    """Where the URL leads; None if it is none. Its error would quote it, password and all."""
    try:
        parts: Mapping[str, object] = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return None
    return DatabaseAddress(
        host=str(parts.get("host") or "localhost"),
        port=str(parts.get("port") or "5432"),
        database=str(parts.get("dbname") or parts.get("user") or ""),
        user=str(parts.get("user") or ""),
    )


def password_of(url: str) -> str:
    """The password in the URL; empty if there is none."""
    try:
        return str(conninfo_to_dict(url).get("password") or "")
    except psycopg.ProgrammingError:
        return ""


async def findings(
    url: str, *, worker: WorkerSettings | None, api: ApiSettings | None, keys: ServerKeys | None
) -> list[Finding]:
    """All about the database. `keys` None: those of the settings cannot be used."""
    place = address_of(url)
    if place is None:
        remedy = f"Set {VARIABLE} to postgresql://user:password@host:port/database."
        return [failed("database.connection", f"{VARIABLE} is no connection URL", remedy, VARIABLE)]
    try:
        connection = await AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="onebox-doctor"
        )
        async with connection:
            seen = await _inspect(connection)
    except psycopg.OperationalError as error:
        return [database.unreachable(str(error), place), skipped("database.schema", "not reached")]
    found = list(
        database.findings(
            seen,
            place,
            own_pool=worker.database_pool_size if worker is not None else 0,
            other_pool=api.database_pool_size if api is not None else 0,
        )
    )
    if keys is not None:
        found.append(database.keys(seen, frozenset(keys.keys)))
    return found


async def _inspect(connection: AsyncConnection[TupleRow]) -> DatabaseState:
    before = datetime.now(UTC)
    now = await _one(connection, "SELECT clock_timestamp()")
    after = datetime.now(UTC)
    pending = await migrate.pending(connection)
    unknown, changed = await migrate.unexpected(connection)
    keys: tuple[tuple[str, int], ...] | None = None
    forbidden = tuple(str(row[0]) for row in await _rows(connection, _FORBIDDEN))
    if not pending and not forbidden:
        keys = tuple((str(key), int(str(count))) for key, count in await _rows(connection, _KEYS))
    version = str(await _one(connection, "SHOW server_version"))
    return DatabaseState(
        major=connection.info.server_version // 10_000,
        version=version.partition(" ")[0],
        encrypted=connection.pgconn.ssl_in_use,
        read_only=bool(await _one(connection, "SELECT pg_is_in_recovery()")),
        pending=pending,
        unknown=unknown,
        changed=changed,
        may_create=bool(
            await _one(connection, "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)")
        ),
        forbidden=forbidden,
        skew_seconds=clock_skew_seconds(now, before, after) if isinstance(now, datetime) else 0.0,
        allowed=int(
            str(
                await _one(
                    connection,
                    "SELECT current_setting('max_connections')::int"
                    " - current_setting('superuser_reserved_connections')::int",
                )
            )
        ),
        used=int(str(await _one(connection, "SELECT sum(numbackends) FROM pg_stat_database"))),
        keys=keys,
    )


async def _one(connection: AsyncConnection[TupleRow], query: LiteralString) -> object:
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row is not None else None


async def _rows(connection: AsyncConnection[TupleRow], query: LiteralString) -> list[TupleRow]:
    return await (await connection.execute(query)).fetchall()
