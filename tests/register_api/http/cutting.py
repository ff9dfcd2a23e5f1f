"""A way to PostgreSQL with a trap in it: a proxy that counts statements, and does something at one of them.

Reads no more of the protocol than where a statement ends, and where its answer does.
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
"""Parse, Bind, Describe, Execute, Close: the Sync behind them makes a statement of them."""

_STATEMENT_ENDS = b"QS"
"""Query and Sync: to each of them the server answers with one ReadyForQuery."""

_READY = b"Z"


class Moment(StrEnum):
    """When the trap springs."""

    BEFORE = "before"
    """The server has not seen the statement."""
    AFTER = "after"
    """The server has carried it out, and nobody has heard of it."""


class Proxy:
    """Between one API process and its database. What the trap leaves connected goes on afterwards."""

    def __init__(self, database: str, *, slow: tuple[bytes, float] | None = None) -> None:
        """`slow` is a text, and the seconds that each statement takes in which it stands."""
        self._database = urlsplit(database)
        self._slow = slow
        self._server: asyncio.Server | None = None
        self._ways: set[_Way] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._ended = False
        self._trap: tuple[int, Moment, Act] | None = None
        self.statements: list[str] = []
        """What came by since the trap was set."""
        self.sprung = False

    @property
    def url(self) -> str:
        """The database behind the proxy, in clear text."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        place = f"{self._database.username}:{self._database.password}@{LOCALHOST}:{port}"
        return urlunsplit(self._database._replace(netloc=place, query="sslmode=disable&gssencmode=disable"))

    def set_trap(self, number: int, moment: Moment, act: Act) -> None:
        """Do it at the `number`th statement from now, once."""
        self.statements = []
        self.sprung = False
        self._trap = (number, moment, act)

    def count(self) -> None:
        """Set no trap: statements are counted from now."""
        self.statements = []
        self._trap = None

    def cut(self) -> None:
        """End all connections, on both sides."""
        for way in self._ways:
            way.cut()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Proxy"]:
        """Take connections for the block."""
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
            writer.close()  # the proxy ends, or the database is gone
            raise
        way = _Way((reader, writer), server)
        self._ways.add(way)
        if self._ended:
            way.cut()  # it ended while this one was on its way to the server
        try:
            await asyncio.gather(self._forth(way), self._back(way))
        finally:
            await way.closed()
            self._ways.discard(way)

    async def _forth(self, way: "_Way") -> None:
        """From the API to the server."""
        with way.both_sides_end():
            # The first message, and it alone, has no type.
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
        """From the server to the API: an answer in one piece."""
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
    """One connection of the API's, and the one that carries it on to the server."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client, self._client_writer = client
        self.server, self._server_writer = server
        self.number = 0
        """Of its latest statement; 0 while it is being set up."""

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
        """When one of them does."""
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
    """For people: the SQL, if it is in there."""
    match statement[:1]:
        case b"Q":
            sql = statement[5:]
        case b"P":
            sql = statement[5:].split(b"\0", 2)[1]
        case _:
            sql = b"(prepared)"
    return " ".join(sql.rstrip(b"\0").decode().split())[:80]
