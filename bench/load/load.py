"""The load generator, a separate process: `python -m bench.load.load < JOB`. Raw HTTP/1.1, keep-alive.

It prints the statuses, the latencies and its own processor time. A load generator at its limit would measure
itself.
"""

import asyncio
import json
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal, cast

import uvloop
from pydantic import BaseModel
from typing_extensions import override

from bench.parts.results import percentile

RETRY_SECONDS = 0.2
"""Delay before a failed call that must succeed is retried; the box script waits at least 0.1 s."""

NO_RESPONSE = 0
"""Status without a response: the connection was refused or broke."""


class Call(BaseModel):
    """One request with constant bytes."""

    bearer: str
    body: str


class Job(BaseModel):
    """The work of the load generator."""

    way: Literal["sustained", "paced", "each"]
    """Sustained: every connection sends its next call after each response. Paced: a fixed number of calls per
    second; latencies count from when a call was due. Each: every call once, repeated until its response is
    200, with a new connection per call."""
    port: int
    path: str
    calls: list[Call]
    connections: int
    seconds: float = 0.0
    """Duration; for each: as long as it takes."""
    rate: float = 0.0
    """Paced calls per second."""


class LoadResult(BaseModel):
    """The result."""

    answers: dict[int, int]
    """Number of responses by status."""
    seconds: float
    p50_ms: float
    p99_ms: float
    """Of responses with status 200."""
    processor_seconds: float
    """Of this process."""

    @property
    def per_second(self) -> float:
        """Responses with status 200 per second."""
        return self.answers.get(200, 0) / self.seconds


class _Connection(asyncio.Protocol):
    """One connection with sequential calls."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.WriteTransport | None = None

    async def call(self, request: bytes) -> int:
        """Send the call. Returns the response's status."""
        if self._transport is None or self._transport.is_closing():
            return NO_RESPONSE
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(
            "asyncio.WriteTransport", transport
        )  # uvloop's transport is one, but not a subclass

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        _, _, length = head.partition(b"content-length:")
        if len(self._buffer) >= end + 4 + int(length.partition(b"\r")[0]):
            self._buffer = b""
            self._end(int(head[9:12]))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._end(NO_RESPONSE)

    def _end(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


@dataclass(slots=True)
class _Load:
    job: Job
    answers: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    async def run(self) -> float:
        """Send the call. Returns its duration in seconds."""
        requests = [_request(self.job, call) for call in self.job.calls]
        started = time.perf_counter()
        if self.job.way == "each":
            left = deque(requests)
            await asyncio.gather(*(self._each(left) for _ in range(self.job.connections)))
            return time.perf_counter() - started
        connections = [await self._connected() for _ in range(self.job.connections)]
        turns, started = cycle(requests), time.perf_counter()
        deadline = started + self.job.seconds
        if self.job.way == "sustained":
            await asyncio.gather(*(self._sustained(each, turns, deadline) for each in connections))
        else:
            due: asyncio.Queue[float] = asyncio.Queue()
            async with asyncio.TaskGroup() as tasks:
                callers = [tasks.create_task(self._paced(each, turns, due)) for each in connections]
                await self._tick(due, started)
                await due.join()
                for caller in callers:
                    caller.cancel()
        return time.perf_counter() - started

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, "127.0.0.1", self.job.port)
        return connection

    async def _sustained(self, connection: _Connection, turns: Iterator[bytes], deadline: float) -> None:
        while (now := time.perf_counter()) < deadline:
            self._note(await connection.call(next(turns)), now)

    async def _paced(
        self, connection: _Connection, turns: Iterator[bytes], due: "asyncio.Queue[float]"
    ) -> None:
        while True:
            since = await due.get()
            self._note(await connection.call(next(turns)), since)
            due.task_done()

    async def _tick(self, due: "asyncio.Queue[float]", started: float) -> None:
        number = round(self.job.seconds * self.job.rate)
        sent = 0
        while sent < number:
            at = started + sent / self.job.rate
            await asyncio.sleep(at - time.perf_counter())
            due.put_nowait(at)
            sent += 1

    async def _each(self, left: deque[bytes]) -> None:
        connection: _Connection | None = None
        while left:
            request, status, since = left.popleft(), NO_RESPONSE, time.perf_counter()
            while True:
                try:
                    connection = connection or await self._connected()
                    status = await connection.call(request)
                except OSError:
                    status = NO_RESPONSE
                self._note(status, since)
                if status == 200:
                    break
                if status == NO_RESPONSE:
                    connection = None
                await asyncio.sleep(RETRY_SECONDS)

    def _note(self, status: int, since: float) -> None:
        self.answers[status] += 1
        if status == 200:
            self.latencies.append(time.perf_counter() - since)


def _request(job: Job, call: Call) -> bytes:
    body = call.body.encode()
    head = (
        f"POST {job.path} HTTP/1.1\r\nHost: 127.0.0.1:{job.port}\r\nAuthorization: Bearer {call.bearer}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _done(job: Job) -> LoadResult:
    load = _Load(job)
    before = _processor_seconds()
    seconds = await load.run()
    if not load.latencies:
        sys.exit(f"no response has status 200: {dict(load.answers)}")
    return LoadResult(
        answers=dict(load.answers),
        seconds=seconds,
        p50_ms=percentile(load.latencies, 0.5) * 1000,
        p99_ms=percentile(load.latencies, 0.99) * 1000,
        processor_seconds=_processor_seconds() - before,
    )


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.stdout.write(uvloop.run(_done(Job.model_validate(json.load(sys.stdin)))).model_dump_json())
