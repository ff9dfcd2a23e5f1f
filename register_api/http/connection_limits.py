"""Limits on a request's head: its size, the time that a connection may take to send it, and its end.

uvicorn has none of these limits. `limits` bounds the body.
"""

import asyncio

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
"""Maximum size of request line and headers; runtimes send 1 KB. May be exceeded by one socket read."""

HEAD_TIMEOUT_SECONDS = 10.0
"""The same as for a body: an idle or very slow caller must not hold a connection."""


class LimitedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a size limit and a timeout for the request's head.

    It drops the trailers of chunked bodies, which uvicorn appends to the headers (RFC 9110, section 6.5.1).
    """

    _head_bytes = 0
    _head_complete = False
    _deadline: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._start_head_timeout()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_head_timeout()
        super().connection_lost(exc)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_complete = False
        self._start_head_timeout()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_complete:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._head_complete = True
        self._cancel_head_timeout()
        super().on_headers_complete()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response("The request's head is too large.")

    def _start_head_timeout(self) -> None:
        self._cancel_head_timeout()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self._on_head_timeout)

    def _cancel_head_timeout(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _on_head_timeout(self) -> None:
        self._deadline = None
        self.transport.close()
