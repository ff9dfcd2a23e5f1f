"""Calls over plain sockets from any loopback address, cheap enough for thousands of boxes in one process.

Each call uses its own connection, as the bootstrap script does.
"""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from devstack.processes import LOCALHOST

CALL_SECONDS = 10.0
"""The bootstrap script's timeout."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and JSON body of a response; status 0 without a response."""

    status: int
    body: dict[str, object] = field(default_factory=dict)
    retry_after: str = ""


async def call(
    port: int,
    path: str,
    body: Mapping[str, object],
    *,
    source: str,
    bearer: str | None = None,
    secret: str | None = None,
    seconds: float = CALL_SECONDS,
) -> Answer:
    """POST the body from a loopback address."""
    content = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {LOCALHOST}:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *([] if bearer is None else [f"Authorization: Bearer {bearer}"]),
        *([] if secret is None else [f"X-Bootstrap-Token: {secret}"]),
        "",
        "",
    ]
    try:
        async with asyncio.timeout(seconds):
            return _read(await _exchange(port, "\r\n".join(lines).encode() + content, source))
    except (OSError, TimeoutError):
        return Answer(0)


async def _exchange(port: int, request: bytes, source: str) -> bytes:
    reader, writer = await asyncio.open_connection(LOCALHOST, port, local_addr=(source, 0))
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


def _read(answer: bytes) -> Answer:
    head, end, content = answer.partition(b"\r\n\r\n")
    if not end:
        return Answer(0)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if len(content) < int(headers["content-length"]):
        return Answer(0)  # the server was killed meanwhile
    return Answer(int(first.split()[1]), json.loads(content), headers.get("retry-after", ""))
