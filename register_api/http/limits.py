"""Bounds on what a caller may send, enforced before anything reads it: size, depth, time, media type.

Every request passes here, and what is refused here was not looked at.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
"""Possessive, and matching an unclosed string too: linear time whatever a caller sends."""

DISCARDED_BYTES = 256 * 1024
DISCARDED_SECONDS = 0.5
"""So much of a refused body is read, and for so long in a row: who still sends when the connection is closed
finds it broken, and may never read the answer (RFC 9112, section 9.6)."""

_BRACKETS = re.compile(rb"[\[\]{}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a body may be."""

    body_bytes: int = 64 * 1024
    """Agent cards in the field have 2 to 8 KB."""
    depth: int = 32
    """Skills of a card are five levels down; thousands of levels exhaust a parser's stack."""
    body_seconds: float = 10.0
    """A caller that sends a byte a minute must not hold a connection."""


class LimitsMiddleware:
    """ASGI middleware: reads the body whole, within the limits, and hands it on."""

    def __init__(
        self, app: ASGIApp, limits: Limits, larger: Mapping[re.Pattern[str], int] | None = None
    ) -> None:
        """`larger` are patterns of paths that take longer bodies, with how many bytes."""
        self._app = app
        self._limits = limits
        self._larger = dict(larger or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on with its body read."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        outcome = await self._read(scope, receive)
        if outcome is None:
            return  # the caller went away
        if isinstance(outcome, bytes) and too_deep(outcome, self._limits.depth):
            detail = ErrorDetail(error=f"body: nested deeper than {self._limits.depth} levels")
            await error_response(Request(scope), ErrorCode.BODY_INVALID, detail)(scope, receive, send)
        elif isinstance(outcome, bytes):
            await self._app(scope, _BufferedBody(outcome, receive), send)
        else:
            # The rest of the body may not have been read: the connection is not used for another request.
            detail = ErrorDetail(headers={"connection": "close"})
            await error_response(Request(scope), outcome, detail)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | ErrorCode | None:
        max_bytes = self._max_bytes(scope["path"])
        refused = _refused_by_headers(scope, max_bytes)
        body, length = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.body_seconds) as deadline:
                while True:
                    if refused is not None:
                        _with_deadline(deadline)
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
        larger = (size for pattern, size in self._larger.items() if pattern.fullmatch(path))
        return max(larger, default=self._limits.body_bytes)


def _refused_by_headers(scope: Scope, max_bytes: int) -> ErrorCode | None:
    headers = {name: value for name, value in scope["headers"] if name in _READ_HEADERS}
    media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
    if media_type != b"application/json" or headers.get(b"content-encoding", b"identity") != b"identity":
        return ErrorCode.MEDIA_TYPE_UNSUPPORTED
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 9 or int(length) > max_bytes:
        return ErrorCode.BODY_TOO_LARGE
    return None


def _with_deadline(deadline: asyncio.Timeout) -> None:
    soon = asyncio.get_running_loop().time() + DISCARDED_SECONDS
    ends_at = deadline.when()
    if ends_at is None or soon < ends_at:
        deadline.reschedule(soon)


_READ_HEADERS = (b"content-type", b"content-encoding", b"content-length")


class _BufferedBody:
    """The body once, as one message; after it whatever the server says."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def too_deep(body: bytes, depth: int) -> bool:
    """Whether the JSON is nested deeper; looks at no more than brackets outside of strings."""
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    level = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        level += 1 if bracket[0] in b"[{" else -1
        if level > depth:
            return True
    return False
