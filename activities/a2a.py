"""Sending an A2A message to a box over HTTP, within bounds of time and memory.

It sends to the target that it is given, follows no redirect, and judges no answer.

    Unreachable     nothing was taken: no connection, or it broke before an answer
    NoAnswer        it may have been taken: no answer came in time
    Garbled         the same: what came is no answer in HTTP
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import h11
import httpx

from workflows.targets import Target

CONNECT_WITHIN = timedelta(seconds=3)
"""The box is in the same network."""

LARGE = 1024 * 1024
"""More of an answer than this is held for a few boxes at a time only."""

_LARGE_AT_ONCE = 4

LARGE_WITHIN = timedelta(seconds=10)
"""Ten megabytes pass in a second; whoever drips must not keep the place of others for a minute."""


class Unreachable(Exception):
    """No connection to the box, or it ended before an answer began."""


class NoAnswer(Exception):
    """The message was sent, and no answer began in time."""


class Garbled(Exception):
    """The message was sent, and what came is not HTTP, or a head without end."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    whole: bool
    """False: the rest did not come in time, or was more than is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much of an answer is taken."""

    within: timedelta
    """From the first byte sent to the last one read."""
    bytes: int


class Sender:
    """Remembers how many large answers are in memory."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)

    @asynccontextmanager
    async def answer(
        self, target: Target, message: Mapping[str, object], bounds: Bounds
    ) -> AsyncIterator[Answer]:
        """POST the JSON-RPC request; a large answer has its place in memory until the block ends.

        Raises `Unreachable`, `NoAnswer` and `Garbled`, before the block.
        """
        async with AsyncExitStack() as place:
            yield await self._send(target, message, bounds, place)

    async def _send(
        self, target: Target, message: Mapping[str, object], bounds: Bounds, place: AsyncExitStack
    ) -> Answer:
        within = bounds.within.total_seconds()
        try:
            async with (
                asyncio.timeout(within) as deadline,
                httpx.AsyncClient(
                    trust_env=False,
                    follow_redirects=False,
                    # Reading the certificates takes as long as the whole call does without TLS.
                    verify=target.url.startswith("https:"),
                    timeout=httpx.Timeout(within, connect=CONNECT_WITHIN.total_seconds()),
                ) as client,
                client.stream(
                    "POST",
                    target.url,
                    json=message,
                    # Unpacked bytes only: the bound on the answer counts what is held in memory.
                    headers={"accept": "application/json", "accept-encoding": "identity"},
                    extensions={"sni_hostname": target.host},
                ) as response,
            ):
                return await self._read(response, bounds, deadline, place)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{type(error).__name__} at {target.url}") from None
        except (TimeoutError, httpx.TimeoutException):
            raise NoAnswer(f"no answer within {within:g} s") from None
        except httpx.TransportError as error:
            if _is_garbled(error):
                raise Garbled("the box's answer is not HTTP") from None
            raise Unreachable(f"{type(error).__name__} at {target.url}") from None

    async def _read(
        self, response: httpx.Response, bounds: Bounds, deadline: asyncio.Timeout, place: AsyncExitStack
    ) -> Answer:
        """The body, as far as it comes in time; its status stands whatever becomes of it."""
        ends_at = deadline.when()
        deadline.reschedule(None)
        body, large = bytearray(), False
        try:
            async with asyncio.timeout_at(ends_at) as rest:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > bounds.bytes:
                        return Answer(response.status_code, b"", whole=False)
                    if len(body) > LARGE and not large:
                        await place.enter_async_context(self._large)
                        large = True
                        rest.reschedule(_sooner(ends_at, LARGE_WITHIN))
        except (TimeoutError, httpx.TransportError):
            return Answer(response.status_code, b"", whole=False)
        return Answer(response.status_code, bytes(body), whole=True)


def _sooner(ends_at: float | None, within: timedelta) -> float:
    soon = asyncio.get_running_loop().time() + within.total_seconds()
    return soon if ends_at is None else min(ends_at, soon)


def _is_garbled(error: httpx.TransportError) -> bool:
    """Whether it was h11 that could not read it: a connection that was closed has the same type of error."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, h11.RemoteProtocolError):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


def message_send(
    message_id: str, text: str, *, blocking: bool, metadata: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The JSON-RPC request; the message's ID lets an agent drop repeats."""
    message: dict[str, object] = {
        "kind": "message",
        "role": "user",
        "messageId": message_id,
        "parts": [{"kind": "text", "text": text}],
    }
    if metadata is not None:
        message["metadata"] = dict(metadata)
    return {
        "jsonrpc": "2.0",
        "id": message_id,
        "method": "message/send",
        "params": {
            "message": message,
            "configuration": {"blocking": blocking, "acceptedOutputModes": ["text/plain"]},
        },
    }
