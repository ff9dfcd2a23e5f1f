"""Connections to PostgreSQL, with timeouts on everything.

StoreUnavailable    the server is down, overloaded, or a lock is held: the request itself is valid
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TypeAlias

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Connection: TypeAlias = AsyncConnection[TupleRow]
Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[TupleRow]]

CONNECT_SECONDS = 3
"""A server in the same region takes milliseconds. An unreachable one must not block a request longer."""

RECONNECT_SECONDS = 10.0
"""After this the pool stops reconnecting until the next checkout. Its backoff doubles without a limit, and
would sleep for minutes after the server is back."""


class StoreUnavailable(Exception):
    """PostgreSQL is unavailable. The same call may succeed later."""


@asynccontextmanager
async def open_pool(
    url: str,
    *,
    minimum: int = 1,
    maximum: int = 8,
    application_name: str = "onebox",
    statement_timeout: timedelta = timedelta(seconds=5),
    lock_timeout: timedelta = timedelta(seconds=2),
    checkout_timeout: timedelta = timedelta(seconds=3),
) -> AsyncIterator[Pool]:
    """A pool of autocommit connections. Opens without waiting for the server; closes with the block."""
    pool: Pool = AsyncConnectionPool(
        url,
        min_size=minimum,
        max_size=maximum,
        timeout=checkout_timeout.total_seconds(),
        reconnect_timeout=RECONNECT_SECONDS,
        name=application_name,
        open=False,
        kwargs={
            "autocommit": True,
            "application_name": application_name,
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": 10_000,  # detects a vanished peer after 10 s
            "keepalives_idle": 30,
            "options": (
                f"-c statement_timeout={_milliseconds(statement_timeout)}"
                f" -c lock_timeout={_milliseconds(lock_timeout)}"
                # A process that hangs in a transaction must not keep its row locks.
                f" -c idle_in_transaction_session_timeout={_milliseconds(2 * statement_timeout)}"
            ),
        },
    )
    await pool.open(wait=False)
    try:
        yield pool
    finally:
        await pool.close()


@asynccontextmanager
async def connection(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for the block. Raises `StoreUnavailable` for temporary errors."""
    try:
        async with pool.connection() as conn:
            yield conn
    except psycopg.OperationalError as error:
        raise StoreUnavailable(type(error).__name__) from error


def _milliseconds(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))
