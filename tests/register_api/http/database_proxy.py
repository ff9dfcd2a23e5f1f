"""A PostgreSQL proxy that counts statements and runs an action at a chosen one.

It parses no more of the protocol than the ends of statements and responses.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

from devstack.processes import LOCALHOST

Act: TypeAlias = Callable[[], Awaitable[None]]

_PARTS = b"PBDEC"
"""Parse, Bind, Describe, Execute, Close: the Sync that follows completes the statement."""

_STATEMENT_ENDS = b"QS"
"""Query and Sync: the server answers each with one ReadyForQuery."""

_READY = b"Z"


class Moment(StrEnum):
    """When the action runs."""

    BEFORE = "before"
    """Before the server receives the statement."""
    AFTER = "after"
    """After the server has executed it, and before the client gets the result."""


class Proxy:
    """A proxy between one API process and its database. Connections that the action leaves open continue."""

    def __init__(self, database: str, *, slow: tuple[bytes, float] | None = None) -> None:
        """`slow` is a text and the seconds that each statement containing it is delayed."""
        self._database = urlsplit(database)
        self._slow = slow
        self._server: asyncio.Server | None = None
        self._ways: set[_Way] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._ended = False
        self._trap: tuple[int, Moment, Act] | None = None
        self.statements: list[str] = []
        """The statements since the trap was set."""
        self.sprung = False

    @property
    def url(self) -> str:
        """The URL of the database through the proxy, without TLS."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        place = f"{self._database.username}:{self._database.password}@{LOCALHOST}:{port}"
        return urlunsplit(self._database._replace(netloc=place, query="sslmode=disable&gssencmode=disable"))

    def set_trap(self, number: int, moment: Moment, act: Act) -> None:
        """Run `act` once, at the `number`th statement from now."""
        self.statements = []
        self.sprung = False
        self._trap = (number, moment, act)

    def count(self) -> None:
        """Remove the trap and count statements from now."""
        self.statements = []
        self._trap = None

    def cut(self) -> None:
        """Close all connections, on both sides."""
        for way in self._ways:
            way.cut()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Accept connections for the block."""
        self._server = await asyncio.start_server(self._carry, LOCALHOST, 0)
        try:
            yield self
        finally:
            self._server.close()
            self._ended = True
            self.cut()
            await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        try:
            server = await asyncio.open_connection(self._database.hostname, self._database.port)
        except BaseException:
            writer.close()  # the proxy ends, or the database is unavailable
            raise
        way = _Way((reader, writer), server)
        self._ways.add(way)
        if self._ended:
            way.cut()  # the proxy ended while this connection was opened
        try:
            await asyncio.gather(self._forth(way), self._back(way))
        finally:
            await way.closed()
            self._ways.discard(way)

    async def _forth(self, way: "_Way") -> None:
        """Forward from the API to the server."""
        with way.both_sides_end():
            # Only the first message has no type.
            way.to_server(await _sized(way.client))
            statement = b""
            async for message in _messages(way.client):
                statement += message
                if message[:1] in _PARTS:
                    continue
                if message[:1] in _STATEMENT_ENDS:
                    self.statements.append(_text(statement))
                    way.number = len(self.statements)
                    await self._passes(way.number, Moment.BEFORE)
                    if self._slow is not None and self._slow[0] in statement:
                        await asyncio.sleep(self._slow[1])
                way.to_server(statement)
                statement = b""

    async def _back(self, way: "_Way") -> None:
        """Forward from the server to the API, one whole result at a time."""
        with way.both_sides_end():
            answer = b""
            async for message in _messages(way.server):
                answer += message
                if message[:1] == _READY and way.number:
                    await self._passes(way.number, Moment.AFTER)
                if message[:1] == _READY or not way.number:
                    way.to_client(answer)
                    answer = b""

    async def _passes(self, number: int, moment: Moment) -> None:
        if self._trap is None or self._trap[:2] != (number, moment):
            return
        (_, _, act), self._trap = self._trap, None
        self.sprung = True
        await act()


class _Way:
    """One client connection and its server connection."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client, self._client_writer = client
        self.server, self._server_writer = server
        self.number = 0
        """The number of its latest statement; 0 during connection setup."""

    def to_server(self, message: bytes) -> None:
        if self._server_writer.is_closing():
            raise ConnectionResetError
        self._server_writer.write(message)

    def to_client(self, message: bytes) -> None:
        if self._client_writer.is_closing():
            raise ConnectionResetError
        self._client_writer.write(message)

    def cut(self) -> None:
        self._client_writer.close()
        self._server_writer.close()

    @contextmanager
    def both_sides_end(self) -> Iterator[None]:
        """Close both sides when the block ends."""
        try:
            yield
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.cut()

    async def closed(self) -> None:
        for writer in (self._client_writer, self._server_writer):
            with suppress(ConnectionError):
                await writer.wait_closed()


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while True:
        kind = await reader.readexactly(1)
        yield kind + await _sized(reader)


async def _sized(reader: asyncio.StreamReader) -> bytes:
    length = await reader.readexactly(4)
    return length + await reader.readexactly(int.from_bytes(length, "big") - 4)


def _text(statement: bytes) -> str:
    """The statement's SQL for messages, if it contains any."""
    match statement[:1]:
        case b"Q":
            sql = statement[5:]
        case b"P":
            sql = statement[5:].split(b"\0", 2)[1]
        case _:
            sql = b"(prepared)"
    return " ".join(sql.rstrip(b"\0").decode().split())[:80]
