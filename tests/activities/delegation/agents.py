"""Agents as servers on this machine, each as ill-behaved as its test wants: bytes in, bytes out.

They know nothing of A2A beyond what a test tells them to say.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import cast


@dataclass(slots=True)
class Caller:
    """One request to an agent, and the way back."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """The body of the request, as it came."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        [length] = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        return await self.reader.readexactly(length)

    async def say(self, *pieces: bytes) -> None:
        """Send bytes. Raises `ConnectionError` once the client is gone."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK") -> None:
        """Send a complete response."""
        await self.say(head(status, f"content-length: {len(body)}"), body)

    async def drip(self, byte: bytes = b" ") -> None:
        """Send byte after byte until the client is gone."""
        while True:
            await self.say(byte)
            await asyncio.sleep(0.05)


Behaviour = Callable[["Agent", Caller], Awaitable[None]]


@dataclass(slots=True)
class Agent:
    """A box's agent, with its received requests and the number of calls."""

    behaviour: Behaviour
    port: int = 0
    asked: list[bytes] = field(default_factory=list)
    callers: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has connected."""
    stuck: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the request has begun to arrive. From here on, only the client ends the call."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A conversation is over."""

    @property
    def url(self) -> str:
        return f"http://box:{self.port}/a2a"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.callers += 1
        self.came.set()
        # The client cut the connection: tests check what the client does then.
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.behaviour(self, Caller(reader, writer))
        finally:
            self.left.set()


@asynccontextmanager
async def agent(behaviour: Behaviour) -> AsyncIterator[Agent]:
    """Serves until the block ends."""
    it = Agent(behaviour)
    conversations: set[asyncio.Task[None]] = set()

    def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(it.serve(reader, writer))
        conversation.add_done_callback(lambda _: writer.close())  # also if it was cancelled before it began
        conversations.add(conversation)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    it.port = int(server.sockets[0].getsockname()[1])
    try:
        yield it
    finally:
        server.close()
        for conversation in conversations:
            conversation.cancel()
        await asyncio.gather(*conversations, return_exceptions=True)


def head(status: str, *headers: str) -> bytes:
    """The head of a response."""
    return "\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode()


def done(text: str) -> bytes:
    """A finished result."""
    message = {
        "kind": "message",
        "role": "agent",
        "messageId": "m",
        "parts": [{"kind": "text", "text": text}],
    }
    return json.dumps({"jsonrpc": "2.0", "id": "1", "result": message}).encode()


async def obliging(it: Agent, caller: Caller) -> None:
    """Answer as an agent should."""
    it.asked.append(await caller.request())
    await caller.answer(done("done"))


def message_of(request: bytes) -> dict[str, object]:
    """The message in a JSON-RPC request."""
    return cast("dict[str, object]", json.loads(request)["params"]["message"])
