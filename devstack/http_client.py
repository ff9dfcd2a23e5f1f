"""Sequential HTTP calls to a server of the devstack over keep-alive connections.

Every response of the register API has a length, so other framings are not supported. A call is sent once.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]

IDLE_SECONDS = 2.0
"""Shorter than the APIs' idle timeout, so that no connection closes just as a call is sent."""

CALL_SECONDS = 30.0

_WITHOUT_BODY = frozenset({204, 304})


class NoResponse(Exception):
    """No response: the connection was refused or broke, or the call timed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The server's response."""

    status: int
    headers: Headers
    content: bytes


@dataclass(slots=True, kw_only=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_since: float = 0.0

    @property
    def is_fit(self) -> bool:
        fresh = time.monotonic() - self.idle_since < IDLE_SECONDS
        return fresh and not self.reader.at_eof() and not self.writer.is_closing()


class HttpClient:
    """Client of one server."""

    def __init__(self, host: str, port: int, *, local_address: str) -> None:
        self._place = host, port
        self._local_address = local_address
        self._idle: list[_Connection] = []

    async def call(
        self,
        method: str,
        target: bytes,
        *,
        headers: Headers,
        body: bytes = b"",
        seconds: float = CALL_SECONDS,
    ) -> Answer:
        """Send the call and return the response. Raises `NoResponse`."""
        head = [b"%s %s HTTP/1.1" % (method.encode(), target), *(b"%s: %s" % each for each in headers)]
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connected()
                connection.writer.write(b"\r\n".join([*head, b"", body]))
                answer, kept = await _answer(connection.reader, method)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError) as error:
            raise NoResponse(type(error).__name__) from error
        else:
            if kept:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
                connection = None
            return answer
        finally:
            if connection is not None:
                connection.writer.close()

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().writer.close()

    async def _connected(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_fit:
                return connection
            with contextlib.suppress(OSError):
                connection.writer.close()
        reader, writer = await asyncio.open_connection(*self._place, local_addr=(self._local_address, 0))
        return _Connection(reader=reader, writer=writer)


async def _answer(reader: asyncio.StreamReader, method: str) -> tuple[Answer, bool]:
    """Return the response, and whether the connection can be reused."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n"))[:-4].split(b"\r\n")
    status = int(first.split(b" ")[1])
    headers: Headers = []
    for line in lines:
        name, _, value = line.partition(b":")
        headers.append((name.strip().lower(), value.strip()))
    said = dict(headers)
    silent = method == "HEAD" or status in _WITHOUT_BODY
    content = b"" if silent else await reader.readexactly(int(said[b"content-length"]))
    return Answer(status=status, headers=headers, content=content), said.get(b"connection") != b"close"
