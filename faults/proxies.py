"""TCP proxies between the parts, on one thread: they cut, slow down or half-open connections."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

CHUNK = 64 * 1024

LATE_SECONDS = 0.3
"""Delay per chunk and direction; a call with one request and one response takes 0.6 s longer."""

CONNECT_SECONDS = 5.0

Place = tuple[str, int]

_T = TypeVar("_T")


class Wire:
    """A proxied connection type. Only the proxies' thread changes its members."""

    def __init__(self, name: str, upstream: Callable[[Place], Place]) -> None:
        """`upstream` maps the local address of a connection to its target."""
        self.name = name
        self.upstream = upstream
        self.cut = 0
        self.slow = 0
        self.half_open = 0
        """Number of active faults of each sort."""
        self.befell = 0
        """Number of chunks and connections affected so far."""
        self.server: asyncio.Server | None = None
        self.pipes: set[Pipe] = set()


class Pipe:
    """One connection, both directions."""

    def __init__(self, wire: Wire, writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        self.wire = wire
        self.writers = writers
        self.swallowed = False
        """Whether data was lost. Later data would make no sense to the other side."""

    def abort(self) -> None:
        """Reset it in both directions."""
        for writer in self.writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one direction until its end."""
        wire = self.wire
        while data := await reader.read(CHUNK):
            if wire.half_open or self.swallowed:
                self.swallowed = True
                wire.befell += 1
                continue
            if wire.slow:
                wire.befell += 1
                await asyncio.sleep(LATE_SECONDS)
            writer.write(data)
            await writer.drain()
        if not self.swallowed and writer.can_write_eof():
            writer.write_eof()


class Proxies:
    """The proxies of a run. Thread-safe."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._wires: dict[str, Wire] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "Proxies":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def open(
        self, name: str, upstream: Callable[[Place], Place], *, host: str = "127.0.0.1", port: int = 0
    ) -> int:
        """Listen for a wire's connections. Returns the port."""
        wire = Wire(name, upstream)
        self._wires[name] = wire

        def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(_serve(wire, reader, writer))
            self._tasks.add(task)
            task.add_done_callback(lambda task: self._served(task, writer))

        async def listen() -> int:
            wire.server = await asyncio.start_server(take, host, port)
            return int(wire.server.sockets[0].getsockname()[1])

        return self._do(listen())

    @contextmanager
    def disturbed(self, name: str, how: str) -> Iterator[Callable[[], int]]:
        """Disturb a wire for the block: `cut`, `slow` or `half_open`. Yields the number of effects so far."""
        wire = self._wires[name]
        before = self._do(self._begin(wire, how))
        try:
            yield lambda: wire.befell - before
        finally:
            self._do(self._end(wire, how))

    async def _begin(self, wire: Wire, how: str) -> int:
        before = wire.befell
        setattr(wire, how, getattr(wire, how) + 1)
        if how == "cut":
            wire.befell += len(wire.pipes)
            for pipe in list(wire.pipes):
                pipe.abort()
        return before

    async def _end(self, wire: Wire, how: str) -> None:
        setattr(wire, how, getattr(wire, how) - 1)
        if how == "half_open" and not wire.half_open:
            # Like a router that lost its state: the next data on such a connection gets a reset.
            for pipe in [pipe for pipe in wire.pipes if pipe.swallowed]:
                pipe.abort()

    def _served(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            writer.transport.abort()  # including connections that are being established

    async def _close(self) -> None:
        # Servers last, without pending connections: asyncio loses connections accepted by a closed server.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for wire in self._wires.values():
                for pipe in list(wire.pipes):
                    pipe.abort()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.wait(others)
        for wire in self._wires.values():
            if wire.server is not None:
                wire.server.close()

    def _do(self, work: Coroutine[None, None, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _serve(wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    if wire.cut:
        wire.befell += 1
        writer.transport.abort()
        return
    caller: Place = writer.get_extra_info("peername")[:2]
    place = wire.upstream(writer.get_extra_info("sockname")[:2])
    try:
        # From the caller's own address, because the callee may check it.
        async with asyncio.timeout(CONNECT_SECONDS):
            beyond_reader, beyond_writer = await asyncio.open_connection(
                *place, local_addr=(caller[0], 0), family=socket.AF_INET
            )
    except (OSError, TimeoutError):
        writer.transport.abort()
        return
    pipe = Pipe(wire, (writer, beyond_writer))
    wire.pipes.add(pipe)
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(pipe.carry(reader, beyond_writer))
            ways.create_task(pipe.carry(beyond_reader, writer))
    except* OSError:
        pass  # one side has closed, so close the other
    finally:
        wire.pipes.discard(pipe)
        if pipe.swallowed:
            pipe.abort()
        else:
            _close_both(pipe)


def _close_both(pipe: Pipe) -> None:
    for writer in pipe.writers:
        with contextlib.suppress(OSError):
            writer.close()
