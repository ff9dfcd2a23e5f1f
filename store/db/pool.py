"""Connections to PostgreSQL: how they are opened, how long anything may wait on them.

    StoreUnavailable    the server is away, too busy, or held by a lock: nothing is wrong with the request

Runs no SQL of its own.
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
"""A server in the same region answers in milliseconds; one that is away must not hold a request longer."""

RECONNECT_SECONDS = 10.0
"""After this the pool gives up until the next checkout asks for a connection: its own backoff doubles
without a bound, and would sleep for minutes after the server is back."""


class StoreUnavailable(Exception):
    """PostgreSQL cannot be asked now; the same call may succeed later."""


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
    """A pool of autocommit connections; opens without waiting for the server, closes with the block."""
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
            "tcp_user_timeout": 10_000,  # a peer that vanished without a word is noticed after 10 s
            "keepalives_idle": 30,
            "options": (
                f"-c statement_timeout={_milliseconds(statement_timeout)}"
                f" -c lock_timeout={_milliseconds(lock_timeout)}"
                # A process that froze between two statements must not hold a generation's row.
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
    """A connection for the block; raises `StoreUnavailable` for whatever passes by itself."""
    try:
        async with pool.connection() as conn:
            yield conn
    except psycopg.OperationalError as error:
        raise StoreUnavailable(type(error).__name__) from error


def _milliseconds(duration: timedelta) -> int:
    return int(duration / timedelta(milliseconds=1))
