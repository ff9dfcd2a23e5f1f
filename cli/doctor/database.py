"""Checks PostgreSQL as the processes reach it, with read-only queries in one session."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from cli.doctor.model import Finding, clock_skew_seconds, failed, ok, skipped, warning
from store.db import migrate
from store.registration.credentials import ServerKeys
from workers.settings.api import ApiSettings
from workers.settings.worker import WorkerSettings

VARIABLE = "DATABASE_URL"

CONNECT_SECONDS = 10

OLDEST_MAJOR = 15
"""The first version that grants nothing on schema public by default and has NULLS NOT DISTINCT."""

SKEW_WARNING = 2.0
SKEW_FAILURE = 30.0
"""Seconds. Deadlines use PostgreSQL's clock, timers Temporal's: with skew, deadlines pass too early."""

LISTEN_CONNECTIONS = 2
"""Connections of a worker in addition to its pool, for notifications."""

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

_MAX_CONNECTIONS: LiteralString = (
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAddress:
    """The parts of a connection URL without its password."""

    host: str
    port: str
    database: str
    user: str

    @property
    def is_remote(self) -> bool:
        """Whether the connection leaves this machine."""
        return not self.host.startswith(("/", "127.", "localhost", "::1"))

    @classmethod
    def parse(cls, url: str) -> "DatabaseAddress | None":
        """The address in a URL; None if it is invalid. psycopg's error would quote the password."""
        try:
            parts: Mapping[str, object] = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            return None
        return cls(
            host=str(parts.get("host") or "localhost"),
            port=str(parts.get("port") or "5432"),
            database=str(parts.get("dbname") or parts.get("user") or ""),
            user=str(parts.get("user") or ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """What the checks read from a database."""

    major: int
    version: str
    encrypted: bool
    read_only: bool
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    """Applied migrations that this code does not know."""
    changed: tuple[str, ...]
    may_create: bool
    forbidden: tuple[str, ...]
    """Tables that this role may not read and write."""
    skew_seconds: float
    """How far the database's clock is ahead of this machine's."""
    max_connections: int
    used_connections: int
    keys: tuple[tuple[str, int], ...] | None
    """IDs of the server keys of current generations, with their counts; None if they cannot be read."""


def password_of(url: str) -> str:
    """The password in the URL; empty if there is none."""
    try:
        return str(conninfo_to_dict(url).get("password") or "")
    except psycopg.ProgrammingError:
        return ""


async def findings(
    url: str, *, worker: WorkerSettings | None, api: ApiSettings | None, keys: ServerKeys | None
) -> list[Finding]:
    """All database checks; `keys` is None if SERVER_KEYS is invalid or not needed."""
    address = DatabaseAddress.parse(url)
    if address is None:
        remedy = f"Set {VARIABLE} to postgresql://user:password@host:port/database."
        return [failed("database.connection", f"{VARIABLE} is not a connection URL", remedy, VARIABLE)]
    try:
        connection = await AsyncConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="onebox-doctor"
        )
        async with connection:
            state = await _read_state(connection)
    except psycopg.OperationalError as error:
        return [connection_error(str(error), address), skipped("database.schema", "not reached")]
    found = list(
        check_state(
            state,
            address,
            own_pool=worker.database_pool_size if worker is not None else 0,
            other_pool=api.database_pool_size if api is not None else 0,
        )
    )
    return found if keys is None else [*found, check_keys(state, frozenset(keys.keys))]


async def _read_state(connection: AsyncConnection[TupleRow]) -> DatabaseState:
    before = datetime.now(UTC)
    now = await _value(connection, "SELECT clock_timestamp()")
    after = datetime.now(UTC)
    pending = await migrate.pending(connection)
    unknown, changed = await migrate.unexpected(connection)
    keys: tuple[tuple[str, int], ...] | None = None
    forbidden = tuple(str(row[0]) for row in await _rows(connection, _FORBIDDEN))
    if not pending and not forbidden:
        keys = tuple((str(key), int(str(count))) for key, count in await _rows(connection, _KEYS))
    version = str(await _value(connection, "SHOW server_version"))
    may_create = await _value(
        connection, "SELECT coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)"
    )
    used = await _value(connection, "SELECT sum(numbackends) FROM pg_stat_database")
    return DatabaseState(
        major=connection.info.server_version // 10_000,
        version=version.partition(" ")[0],
        encrypted=connection.pgconn.ssl_in_use,
        read_only=bool(await _value(connection, "SELECT pg_is_in_recovery()")),
        pending=pending,
        unknown=unknown,
        changed=changed,
        may_create=bool(may_create),
        forbidden=forbidden,
        skew_seconds=clock_skew_seconds(now, before, after) if isinstance(now, datetime) else 0.0,
        max_connections=int(str(await _value(connection, _MAX_CONNECTIONS))),
        used_connections=int(str(used)),
        keys=keys,
    )


async def _value(connection: AsyncConnection[TupleRow], query: LiteralString) -> object:
    row = await (await connection.execute(query)).fetchone()
    return row[0] if row is not None else None


async def _rows(connection: AsyncConnection[TupleRow], query: LiteralString) -> list[TupleRow]:
    return await (await connection.execute(query)).fetchall()


def connection_error(text: str, address: DatabaseAddress) -> Finding:
    """Why no connection was made, derived from the error text of the server or the driver."""
    check, error = "database.connection", " ".join(text.split())
    where = f"{address.host}:{address.port}"
    for signs, message, remedy in (
        (
            ("password authentication failed", "no password supplied", "authentication failed"),
            f"{where} does not accept the password of {address.user!r}",
            f"Correct user and password in {VARIABLE}. Percent-encode special characters.",
        ),
        (
            ("does not exist",),
            f"{where} has no such database or role ({address.database!r}, {address.user!r})",
            f"Create it, or correct {VARIABLE}.",
        ),
        (
            ("no pg_hba.conf entry", "ssl", "certificate"),
            f"{where} refuses this kind of connection: {error}",
            f"Add sslmode=require (or verify-full and sslrootcert) to {VARIABLE}, or change pg_hba.conf.",
        ),
        (
            ("too many clients", "remaining connection slots"),
            f"{where} has no free connection",
            "Raise max_connections, or lower DATABASE_POOL_SIZE.",
        ),
        (
            ("failed to resolve", "could not translate host name", "name or service not known"),
            f"the host {address.host} is not known",
            f"Correct the host in {VARIABLE}.",
        ),
        (
            ("timeout", "timed out"),
            f"{where} does not answer",
            f"Correct {VARIABLE}, or allow the connection in security groups, firewalls and routes.",
        ),
        (
            ("refused",),
            f"nothing listens at {where}",
            f"Start PostgreSQL, or correct host and port in {VARIABLE}.",
        ),
    ):
        if any(sign in error.lower() for sign in signs):
            return failed(check, message, remedy, VARIABLE)
    return failed(check, f"{where}: {error}", f"Correct {VARIABLE}.", VARIABLE)


def check_state(
    state: DatabaseState, address: DatabaseAddress, *, own_pool: int, other_pool: int
) -> Iterator[Finding]:
    """The findings from what was read; `own_pool` and `other_pool` are the pool sizes of worker and API."""
    yield ok(
        "database.connection",
        f"PostgreSQL {state.version} at {address.host}:{address.port}, {address.database} as {address.user}",
    )
    yield _version(state)
    yield _tls(state, address)
    yield _schema(state)
    yield _privileges(state)
    yield _clock(state.skew_seconds)
    yield _connections(state, own_pool, other_pool)


def check_keys(state: DatabaseState, configured: frozenset[str]) -> Finding:
    """Whether SERVER_KEYS has the keys of all current generations."""
    check = "database.server_keys"
    if state.keys is None:
        return skipped(check, "the tables cannot be read")
    missing = [(key, boxes) for key, boxes in state.keys if key not in configured]
    if missing:
        counts = ", ".join(f"{boxes} with key {key!r}" for key, boxes in missing)
        return failed(
            check,
            f"current generations use keys that are not configured: {counts}",
            "Add them to SERVER_KEYS after the first. Remove a key only when no current generation uses it.",
            "SERVER_KEYS",
        )
    total = sum(boxes for _, boxes in state.keys)
    return ok(check, f"the keys of all {total} current generations are configured")


def _version(state: DatabaseState) -> Finding:
    check = "database.version"
    if state.major < OLDEST_MAJOR:
        remedy = f"Upgrade to {OLDEST_MAJOR} or newer."
        return warning(check, f"PostgreSQL {state.version} is not supported", remedy)
    return ok(check, f"{state.major}; {OLDEST_MAJOR} or newer is required")


def _tls(state: DatabaseState, address: DatabaseAddress) -> Finding:
    check = "database.tls"
    if address.is_remote and not state.encrypted:
        remedy = f"Add sslmode=require to {VARIABLE}."
        return warning(check, f"the connection to {address.host} is not encrypted", remedy, VARIABLE)
    return ok(check, "encrypted" if state.encrypted else "not encrypted, but local to this machine")


def _schema(state: DatabaseState) -> Finding:
    check = "database.schema"
    if state.read_only:
        remedy = f"Point {VARIABLE} to the primary."
        return failed(check, "this server is a read-only replica", remedy, VARIABLE)
    if state.changed:
        return failed(
            check,
            f"applied migrations differ from this code's: {', '.join(state.changed)}",
            "Restore the files, and deploy a build of a released version.",
        )
    if state.pending:
        remedy = "Run `onebox migrate`."
        if not state.may_create:
            remedy = "Run `onebox migrate` as a role that may CREATE in the schema."
        return failed(check, f"migrations are missing: {', '.join(state.pending)}", remedy, VARIABLE)
    if state.unknown:
        return warning(
            check,
            f"the database has migrations that this code does not know: {', '.join(state.unknown)}",
            "Deploy the newer code. This code still runs, but its `onebox migrate` refuses to.",
        )
    return ok(check, "all migrations are applied")


def _privileges(state: DatabaseState) -> Finding:
    check = "database.privileges"
    if state.forbidden:
        return failed(
            check,
            f"this role may not read and write {', '.join(state.forbidden)}",
            "GRANT SELECT, INSERT, UPDATE, DELETE on them, or migrate with the role of the processes.",
            VARIABLE,
        )
    return ok(check, "all tables are readable and writable")


def _clock(skew: float) -> Finding:
    check = "database.clock"
    message = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    remedy = "Run NTP (chrony) on this machine and on the database server."
    if abs(skew) > SKEW_FAILURE:
        return failed(check, message, remedy)
    if abs(skew) > SKEW_WARNING:
        return warning(check, message, remedy)
    return ok(check, f"within {SKEW_WARNING:g} s of this machine's")


def _connections(state: DatabaseState, own_pool: int, other_pool: int) -> Finding:
    check = "database.connections"
    needed = own_pool + LISTEN_CONNECTIONS + other_pool
    message = (
        f"{state.max_connections} allowed, {state.used_connections} in use; "
        f"a worker and an API use up to {needed}"
    )
    remedy = "Raise max_connections, lower DATABASE_POOL_SIZE, or add a connection pooler (session mode)."
    if state.max_connections < needed:
        return failed(check, message, remedy, "DATABASE_POOL_SIZE")
    if state.max_connections < 2 * needed:
        return warning(check, f"{message}, twice as many in a rolling restart", remedy, "DATABASE_POOL_SIZE")
    return ok(check, message)
