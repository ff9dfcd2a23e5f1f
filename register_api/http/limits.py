"""Limits on request bodies: size, nesting depth, time, media type. Enforced before any handler runs.

Starlette's `max_body_size` cannot replace the size limit: it answers a declared Content-Length above the
limit in plain text, past the exception handlers, and does not drain the refused body.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response

DISCARDED_BYTES = 256 * 1024
DISCARDED_SECONDS = 0.5
"""How much of a refused body is drained, and for how long. A caller that is still sending when the connection
closes gets a connection error, and may never read the response (RFC 9112, section 9.6)."""

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
"""JSON strings. Possessive, and matches an unclosed string too: linear time for any input."""

_BRACKETS = re.compile(rb"[\[\]{}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on a request body."""

    body_bytes: int = 64 * 1024
    """Agent cards in the field have 2 to 8 KB."""
    depth: int = 32
    """A card's skills are five levels deep; thousands of levels exhaust a parser's stack."""
    body_seconds: float = 10.0
    """A caller that sends a byte a minute must not hold a connection."""


class LimitsMiddleware:
    """ASGI middleware that reads the whole body within the limits, then calls the application."""

    def __init__(
        self, app: ASGIApp, limits: Limits, path_body_bytes: Mapping[re.Pattern[str], int] | None = None
    ) -> None:
        """`path_body_bytes` maps patterns of paths that accept longer bodies to their limit in bytes."""
        self._app = app
        self._limits = limits
        self._path_body_bytes = dict(path_body_bytes or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or call the application with the body in one message."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        outcome = await self._read(scope, receive)
        if outcome is None:
            return  # the caller disconnected
        if isinstance(outcome, ErrorCode):
            # Part of the body may be unread, so the connection cannot carry another request.
            detail = ErrorDetail(headers={"connection": "close"})
            await error_response(Request(scope), outcome, detail)(scope, receive, send)
        elif too_deep(outcome, self._limits.depth):
            detail = ErrorDetail(error=f"body: nested deeper than {self._limits.depth} levels")
            await error_response(Request(scope), ErrorCode.BODY_INVALID, detail)(scope, receive, send)
        else:
            await self._app(scope, _BufferedBody(outcome, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | ErrorCode | None:
        """The body, the code of the limit that it exceeds, or None if the caller disconnected."""
        max_bytes = self._max_bytes(scope["path"])
        refused = _refused_by_headers(Headers(scope=scope), max_bytes)
        body, length = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                while True:
                    if refused is not None:
                        _shorten(deadline)
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    chunk = message.get("body", b"")
                    length += len(chunk)
                    if refused is None:
                        body += chunk
                        if length > max_bytes:
                            refused = ErrorCode.BODY_TOO_LARGE
                            body.clear()
                    if not message.get("more_body", False):
                        return refused or bytes(body)
                    if refused is not None and length > max_bytes + DISCARDED_BYTES:
                        return refused
        except TimeoutError:
            return refused or ErrorCode.BODY_TOO_SLOW

    def _max_bytes(self, path: str) -> int:
        matches = (size for pattern, size in self._path_body_bytes.items() if pattern.fullmatch(path))
        return max(matches, default=self._limits.body_bytes)


def _refused_by_headers(headers: Headers, max_bytes: int) -> ErrorCode | None:
    media_type = headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" or headers.get("content-encoding", "identity") != "identity":
        return ErrorCode.MEDIA_TYPE_UNSUPPORTED
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 9 or int(length) > max_bytes:
        return ErrorCode.BODY_TOO_LARGE
    return None


def _shorten(deadline: asyncio.Timeout) -> None:
    """Limit the wait for the next chunk of a refused body to `DISCARDED_SECONDS`."""
    soon = asyncio.get_running_loop().time() + DISCARDED_SECONDS
    ends_at = deadline.when()
    if ends_at is None or soon < ends_at:
        deadline.reschedule(soon)


class _BufferedBody:
    """An ASGI `receive` that returns the body in one message, then the server's messages."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def too_deep(body: bytes, depth: int) -> bool:
    """Whether the JSON is nested deeper than `depth`. Counts brackets outside of strings; parses nothing."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    level = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        level += 1 if bracket[0] in b"[{" else -1
        if level > depth:
            return True
    return False
