"""A TCP wire between boxes and a register API that can lose the response to a register call."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from devstack.processes import LOCALHOST, free_port

CHUNK = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Wire:
    """One wire to one API."""

    upstream: int
    """The API's port."""
    port: int
    losing: str = ""
    """The workspace whose next register response is lost; empty: none."""

    _connections: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.current_task()
        if task is not None:
            self._connections[task] = writer
            task.add_done_callback(self._connections.pop)
        with suppress(OSError):
            beyond, to_beyond = await asyncio.open_connection(LOCALHOST, self.upstream)
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                to_beyond.write(head + body)
                if self._loses(head, body):
                    self.losing = ""
                    await beyond.read(1)  # it was answered, so the effect is done
                    return
                await asyncio.gather(_pump(reader, to_beyond), _pump(beyond, writer))
            except asyncio.IncompleteReadError:
                return
            finally:
                to_beyond.close()
                writer.close()

    async def close(self) -> None:
        """Close all connections."""
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*self._connections)

    def _loses(self, head: bytes, body: bytes) -> bool:
        named = f'"{self.losing}"'.encode()
        return bool(self.losing) and head.startswith(b"POST /registry/register") and named in body


@asynccontextmanager
async def wired(upstream: int, port: int | None = None) -> AsyncIterator[Wire]:
    """Run a wire for the block."""
    wire = Wire(upstream=upstream, port=port or free_port())
    server = await asyncio.start_server(wire.pass_on, LOCALHOST, wire.port)
    try:
        yield wire
    finally:
        server.close()
        await wire.close()


def _length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.partition(b"\r")[0]) if found else 0


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
            await sink.drain()
    sink.close()
