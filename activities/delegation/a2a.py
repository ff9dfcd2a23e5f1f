"""Sends A2A messages to boxes over HTTP, with limits on time and memory. Follows no redirects.

Unreachable        not delivered: no connection, or it broke before a response
NoResponse         possibly delivered: no response in time
InvalidResponse    possibly delivered: the response is not HTTP
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import h11
import httpx2

from workflows.shared.target_url import Target

CONNECT_TIMEOUT = timedelta(seconds=3)
"""The box is in the same network."""

LARGE_RESPONSE_BYTES = 1024 * 1024
"""Larger responses need one of `_MAX_LARGE_RESPONSES` slots."""

_MAX_LARGE_RESPONSES = 4

LARGE_RESPONSE_TIMEOUT = timedelta(seconds=10)
"""Ten megabytes take a second. A slow response must not hold a slot for a minute."""


class Unreachable(Exception):
    """No connection to the box, or it closed before the response began."""


class NoResponse(Exception):
    """The message was sent, and no response began in time."""


class InvalidResponse(Exception):
    """The message was sent, and the response is not valid HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    """The HTTP response of a box."""

    status: int
    body: bytes
    complete: bool
    """False if the body was truncated by the timeout or the size limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseLimits:
    """Limits of one response."""

    timeout: timedelta
    """From the first byte sent to the last byte read."""
    max_bytes: int


class A2aClient:
    """Sends messages, with at most `_MAX_LARGE_RESPONSES` large responses in memory."""

    def __init__(self) -> None:
        self._large = asyncio.Semaphore(_MAX_LARGE_RESPONSES)

    @asynccontextmanager
    async def send(
        self, target: Target, message: Mapping[str, object], limits: ResponseLimits
    ) -> AsyncIterator[Response]:
        """POST the JSON-RPC request. A large response holds its slot until the context manager exits.

        Raises `Unreachable`, `NoResponse` or `InvalidResponse` before the block.
        """
        async with AsyncExitStack() as stack:
            yield await self._send(target, message, limits, stack)

    async def _send(
        self, target: Target, message: Mapping[str, object], limits: ResponseLimits, stack: AsyncExitStack
    ) -> Response:
        within = limits.timeout.total_seconds()
        try:
            async with (
                asyncio.timeout(within) as deadline,
                httpx2.AsyncClient(
                    trust_env=False,
                    follow_redirects=False,
                    # Loading CA certificates takes as long as a whole call without TLS.
                    verify=target.url.startswith("https:"),
                    timeout=httpx2.Timeout(within, connect=CONNECT_TIMEOUT.total_seconds()),
                ) as client,
                client.stream(
                    "POST",
                    target.url,
                    json=message,
                    # No compression: the size limit counts the bytes in memory.
                    headers={"accept": "application/json", "accept-encoding": "identity"},
                    extensions={"sni_hostname": target.host},
                ) as response,
            ):
                return await self._read(response, limits, deadline, stack)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Unreachable(f"{type(error).__name__} at {target.url}") from None
        except (TimeoutError, httpx2.TimeoutException):
            raise NoResponse(f"no response within {within:g} s") from None
        except httpx2.TransportError as error:
            if _is_invalid_http(error):
                raise InvalidResponse("the response of the box is not HTTP") from None
            raise Unreachable(f"{type(error).__name__} at {target.url}") from None

    async def _read(
        self,
        response: httpx2.Response,
        limits: ResponseLimits,
        deadline: asyncio.Timeout,
        stack: AsyncExitStack,
    ) -> Response:
        """Read the body until the deadline. The status counts even if the body is incomplete."""
        ends_at = deadline.when()
        deadline.reschedule(None)
        body, large = bytearray(), False
        try:
            async with asyncio.timeout_at(ends_at) as rest:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > limits.max_bytes:
                        return Response(response.status_code, b"", complete=False)
                    if len(body) > LARGE_RESPONSE_BYTES and not large:
                        await stack.enter_async_context(self._large)
                        large = True
                        rest.reschedule(_earlier_deadline(ends_at, LARGE_RESPONSE_TIMEOUT))
        except (TimeoutError, httpx2.TransportError):
            return Response(response.status_code, b"", complete=False)
        return Response(response.status_code, bytes(body), complete=True)


def _earlier_deadline(ends_at: float | None, timeout: timedelta) -> float:
    soon = asyncio.get_running_loop().time() + timeout.total_seconds()
    return soon if ends_at is None else min(ends_at, soon)


def _is_invalid_http(error: httpx2.TransportError) -> bool:
    """Whether h11 could not parse the response. httpx2 raises the same error type for closed connections."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, h11.RemoteProtocolError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def message_send(
    message_id: str, text: str, *, blocking: bool, metadata: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The JSON-RPC request. The message ID lets an agent drop duplicates."""
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
