"""Sending an A2A message to a box over HTTP, within bounds of time and memory.

It sends to the target that it is given, follows no redirect, and judges no answer.

    Unreachable     nothing was taken: no connection, or it broke before an answer
    NoResponse        it may have been taken: no answer came in time
    InvalidResponse         the same: what came is no answer in HTTP
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import h11
import httpx

from workflows.shared.target_url import Target

CONNECT_TIMEOUT = timedelta(seconds=3)
"""The box is in the same network."""

LARGE_RESPONSE_BYTES = 1024 * 1024
"""More of an answer than this is held for a few boxes at a time only."""

_MAX_LARGE_RESPONSES = 4

LARGE_RESPONSE_TIMEOUT = timedelta(seconds=10)
"""Ten megabytes pass in a second; whoever drips must not keep the place of others for a minute."""


class Unreachable(Exception):
    """No connection to the box, or it ended before an answer began."""


class NoResponse(Exception):
    """The message was sent, and no answer began in time."""


class InvalidResponse(Exception):
    """The message was sent, and what came is not HTTP, or a head without end."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back."""

    status: int
    body: bytes
    complete: bool
    """False: the rest did not come in time, or was more than is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseLimits:
    """How much of an answer is taken."""

    timeout: timedelta
    """From the first byte sent to the last one read."""
    max_bytes: int


class A2aClient:
    """Remembers how many large answers are in memory."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(_MAX_LARGE_RESPONSES)

    @asynccontextmanager
    async def send(
        self, target: Target, message: Mapping[str, object], bounds: ResponseLimits
    ) -> AsyncIterator[Response]:
        """POST the JSON-RPC request; a large answer has its place in memory until the block ends.

        Raises `Unreachable`, `NoResponse` and `InvalidResponse`, before the block.
        """
        async with AsyncExitStack() as place:
            yield await self._send(target, message, bounds, place)

    async def _send(
        self, target: Target, message: Mapping[str, object], bounds: ResponseLimits, place: AsyncExitStack
    ) -> Response:
        within = bounds.timeout.total_seconds()
        try:
            async with (
                asyncio.timeout(within) as deadline,
                httpx.AsyncClient(
                    trust_env=False,
                    follow_redirects=False,
                    # Reading the certificates takes as long as the whole call does without TLS.
                    verify=target.url.startswith("https:"),
                    timeout=httpx.Timeout(within, connect=CONNECT_TIMEOUT.total_seconds()),
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
            raise NoResponse(f"no answer within {within:g} s") from None
        except httpx.TransportError as error:
            if _is_invalid_http(error):
                raise InvalidResponse("the box's answer is not HTTP") from None
            raise Unreachable(f"{type(error).__name__} at {target.url}") from None

    async def _read(
        self,
        response: httpx.Response,
        bounds: ResponseLimits,
        deadline: asyncio.Timeout,
        place: AsyncExitStack,
    ) -> Response:
        """The body, as far as it comes in time; its status stands whatever becomes of it."""
        ends_at = deadline.when()
        deadline.reschedule(None)
        body, large = bytearray(), False
        try:
            async with asyncio.timeout_at(ends_at) as rest:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > bounds.max_bytes:
                        return Response(response.status_code, b"", complete=False)
                    if len(body) > LARGE_RESPONSE_BYTES and not large:
                        await place.enter_async_context(self._large)
                        large = True
                        rest.reschedule(_earlier_deadline(ends_at, LARGE_RESPONSE_TIMEOUT))
        except (TimeoutError, httpx.TransportError):
            return Response(response.status_code, b"", complete=False)
        return Response(response.status_code, bytes(body), complete=True)


def _earlier_deadline(ends_at: float | None, timeout: timedelta) -> float:
    soon = asyncio.get_running_loop().time() + timeout.total_seconds()
    return soon if ends_at is None else min(ends_at, soon)


def _is_invalid_http(error: httpx.TransportError) -> bool:
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
