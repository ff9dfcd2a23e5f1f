"""The wire loses the named response only, and the lost call has taken effect."""

import asyncio
import json

import httpx2
import pytest

from bench.load.wire import wired

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_lost_answer_is_lost_once_and_only_for_the_workspace_that_is_named() -> None:
    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        seen.append(json.loads(await reader.readexactly(length))["id"])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, wired(server.sockets[0].getsockname()[1]) as wire:

        async def register(workspace: str) -> int:
            async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
                url = f"http://127.0.0.1:{wire.port}/registry/register"
                return (await http.post(url, content=json.dumps({"id": workspace}))).status_code

        assert await register("ws-1") == 200
        wire.losing = "ws-1"
        assert await register("ws-10") == 200
        with pytest.raises(httpx2.TransportError):
            await register("ws-1")
        assert await register("ws-1") == 200
    assert seen == ["ws-1", "ws-10", "ws-1", "ws-1"]
