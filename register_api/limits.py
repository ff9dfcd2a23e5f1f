"""Bounds on what a caller may send, enforced before anything reads it: size, depth, time, media type.

Every request passes here, and what is refused here was not looked at.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from register_api.answers import Code
from register_api.errors import ErrorDetail, error_response

_STRINGS = re.compile(rb'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
"""Possessive, and matching an unclosed string too: linear time whatever a caller sends."""

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


class Bounded:
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
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                outcome = await self._read(scope, receive)
        except TimeoutError:
            outcome = Code.BODY_TOO_SLOW
        if outcome is None:
            return  # the caller went away
        if isinstance(outcome, bytes) and too_deep(outcome, self._limits.depth):
            detail = ErrorDetail(error=f"body: nested deeper than {self._limits.depth} levels")
            await error_response(Request(scope), Code.BODY_INVALID, detail)(scope, receive, send)
        elif isinstance(outcome, bytes):
            await self._app(scope, _Replay(outcome, receive), send)
        else:
            # The rest of the body is not read: the connection cannot be used for another request.
            detail = ErrorDetail(headers={"connection": "close"})
            await error_response(Request(scope), outcome, detail)(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Code | None:
        most = self._most(scope["path"])
        headers = {name: value for name, value in scope["headers"] if name in _READ_HEADERS}
        media_type = headers.get(b"content-type", b"application/json").partition(b";")[0].strip().lower()
        if media_type != b"application/json" or headers.get(b"content-encoding", b"identity") != b"identity":
            return Code.MEDIA_TYPE_UNSUPPORTED
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 9 or int(length) > most:
            return Code.BODY_TOO_LARGE
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > most:
                return Code.BODY_TOO_LARGE
            if not message.get("more_body", False):
                return bytes(body)

    def _most(self, path: str) -> int:
        larger = (size for pattern, size in self._larger.items() if pattern.fullmatch(path))
        return max(larger, default=self._limits.body_bytes)


_READ_HEADERS = (b"content-type", b"content-encoding", b"content-length")


class _Replay:
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
