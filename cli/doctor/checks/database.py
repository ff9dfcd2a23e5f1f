"""What follows from what PostgreSQL said: the words for each fault, and what mends it.

Judges values; asks nobody.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cli.doctor.model import Finding, failed, ok, skipped, warning

VARIABLE = "DATABASE_URL"

OLDEST_MAJOR = 15
"""The schema grants nothing to PUBLIC, and NULLS NOT DISTINCT is there; older ones were never tried."""

SKEW_WARNING = 2.0
SKEW_FAILURE = 30.0
"""Seconds. Deadlines are the database's, timers Temporal's: far apart, a box is late before its time."""

LISTEN_CONNECTIONS = 2
"""Connections of a worker beside its pool: they wait for notifications."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAddress:
    """Where a URL leads."""

    host: str
    port: str
    database: str
    user: str

    @property
    def is_remote(self) -> bool:
        """Whether what is said leaves this machine."""
        return not self.host.startswith(("/", "127.", "localhost", "::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """One look at a database that can be reached."""

    major: int
    version: str
    encrypted: bool
    read_only: bool
    pending: tuple[str, ...]
    unknown: tuple[str, ...]
    """Migrations that the database has and this code doesn't know."""
    changed: tuple[str, ...]
    may_create: bool
    forbidden: tuple[str, ...]
    """Tables that this role may not read and write."""
    skew_seconds: float
    """How far the database's clock is ahead of this machine's."""
    allowed: int
    used: int
    keys: tuple[tuple[str, int], ...] | None
    """The IDs of the server's keys by which current boxes were made, with their numbers; None: not told."""


def unreachable(text: str, address: DatabaseAddress) -> Finding:
    """Why no connection came about, by the server's or the library's words."""
    check, said = "database.connection", " ".join(text.split())
    lower = said.lower()
    where = f"{address.host}:{address.port}"
    for signs, told, remedy in (
        (
            ("password authentication failed", "no password supplied", "authentication failed"),
            f"{where} does not accept the password of {address.user!r}",
            f"Correct user and password in {VARIABLE} (percent-encode what is special in a URL).",
        ),
        (
            ("does not exist",),
            f"{where} has no such database or role ({address.database!r}, {address.user!r})",
            f"Create it, or correct {VARIABLE}.",
        ),
        (
            ("no pg_hba.conf entry", "ssl", "certificate"),
            f"{where} refuses this kind of connection: {said}",
            f"Add sslmode=require (or verify-full and sslrootcert) to {VARIABLE}, or let the server take it.",
        ),
        (
            ("too many clients", "remaining connection slots"),
            f"{where} has no connection left",
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
            f"Correct {VARIABLE}, or let the network pass: security group, firewall, route.",
        ),
        (
            ("refused",),
            f"nothing listens at {where}",
            f"Start PostgreSQL, or correct host and port in {VARIABLE}.",
        ),
    ):
        if any(sign in lower for sign in signs):
            return failed(check, told, remedy, VARIABLE)
    return failed(check, f"{where}: {said}", f"Correct {VARIABLE}.", VARIABLE)


def findings(
    seen: DatabaseState, address: DatabaseAddress, *, own_pool: int, other_pool: int
) -> Iterator[Finding]:
    """What is well and what isn't; `own_pool` and `other_pool` are the connections of worker and API."""
    yield ok(
        "database.connection",
        f"PostgreSQL {seen.version} at {address.host}:{address.port}, {address.database} as {address.user}",
    )
    yield _version(seen)
    yield _tls(seen, address)
    yield _schema(seen)
    yield _privileges(seen)
    yield _clock(seen.skew_seconds)
    yield _connections(seen, own_pool, other_pool)


def keys(seen: DatabaseState, configured: frozenset[str]) -> Finding:
    """Whether the keys are there by which the boxes of now were made."""
    check = "database.server_keys"
    if seen.keys is None:
        return skipped(check, "the tables cannot be read")
    missing = [(key, boxes) for key, boxes in seen.keys if key not in configured]
    if missing:
        told = ", ".join(f"{boxes} of key {key!r}" for key, boxes in missing)
        return failed(
            check,
            f"current generations were opened with keys that are not there: {told}",
            "Put them back into SERVER_KEYS, after the current one; take a key out only when no "
            "current generation has it.",
            "SERVER_KEYS",
        )
    return ok(check, f"the keys of all {sum(boxes for _, boxes in seen.keys)} current generations are there")


def _version(seen: DatabaseState) -> Finding:
    if seen.major < OLDEST_MAJOR:
        return warning(
            "database.version",
            f"PostgreSQL {seen.version} is older than what Onebox is tried with",
            f"Upgrade to {OLDEST_MAJOR} or newer.",
        )
    return ok("database.version", f"{seen.major}; {OLDEST_MAJOR} or newer is needed")


def _tls(seen: DatabaseState, address: DatabaseAddress) -> Finding:
    if address.is_remote and not seen.encrypted:
        return warning(
            "database.tls",
            f"the connection to {address.host} is not encrypted",
            f"Add sslmode=require to {VARIABLE}.",
            VARIABLE,
        )
    return ok("database.tls", "encrypted" if seen.encrypted else "not encrypted, and on this machine")


def _schema(seen: DatabaseState) -> Finding:
    check = "database.schema"
    if seen.read_only:
        return failed(
            check, "this server is a read-only replica", f"Let {VARIABLE} lead to the primary.", VARIABLE
        )
    if seen.changed:
        return failed(
            check,
            f"applied migrations are not what this code has: {', '.join(seen.changed)}",
            "Restore the files, and deploy a build of a released version.",
        )
    if seen.pending:
        remedy = "Run `onebox migrate`."
        if not seen.may_create:
            remedy = "Run `onebox migrate` as a role that may CREATE in the schema."
        return failed(check, f"migrations are missing: {', '.join(seen.pending)}", remedy, VARIABLE)
    if seen.unknown:
        return warning(
            check,
            f"the database is ahead of this code by {', '.join(seen.unknown)}",
            "Deploy the newer code; this one still runs, and `onebox migrate` of it refuses.",
        )
    return ok(check, "all migrations are applied")


def _privileges(seen: DatabaseState) -> Finding:
    check = "database.privileges"
    if seen.forbidden:
        return failed(
            check,
            f"this role may not read and write {', '.join(seen.forbidden)}",
            "GRANT SELECT, INSERT, UPDATE, DELETE on them, or migrate as the role that the processes use.",
            VARIABLE,
        )
    return ok(check, "every table may be read and written")


def _clock(skew: float) -> Finding:
    check = "database.clock"
    told = f"{abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    remedy = "Run NTP (chrony) on this machine, and see that the database server does."
    if abs(skew) > SKEW_FAILURE:
        return failed(check, told, remedy)
    if abs(skew) > SKEW_WARNING:
        return warning(check, told, remedy)
    return ok(check, f"within {SKEW_WARNING:g} s of this machine's")


def _connections(seen: DatabaseState, own_pool: int, other_pool: int) -> Finding:
    check = "database.connections"
    one_each = own_pool + LISTEN_CONNECTIONS + other_pool
    told = f"{seen.allowed} allowed, {seen.used} in use; a worker and an API take up to {one_each}"
    remedy = "Raise max_connections, lower DATABASE_POOL_SIZE, or put a pooler between (session mode)."
    if seen.allowed < one_each:
        return failed(check, told, remedy, "DATABASE_POOL_SIZE")
    if seen.allowed < 2 * one_each:
        return warning(check, f"{told}, and twice that in a rolling restart", remedy, "DATABASE_POOL_SIZE")
    return ok(check, told)
