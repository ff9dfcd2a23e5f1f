"""Graceful shutdown behind a load balancer: report not ready, wait, then stop accepting connections.

During the wait the server answers all requests and closes each connection after its response, so that clients
reconnect to another process.
"""

import asyncio
import signal
from collections.abc import MutableMapping
from datetime import timedelta
from types import FrameType

import structlog
import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

log: structlog.stdlib.BoundLogger = structlog.get_logger("api")


class Drain:
    """Whether the process is shutting down."""

    def __init__(self) -> None:
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether shutdown has begun."""
        return self._begun

    def begin(self) -> None:
        """Begin the shutdown; the process is not ready from now on."""
        self._begun = True


class DrainingMiddleware:
    """ASGI middleware: adds `Connection: close` to responses while the process drains."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def sent(message: MutableMapping[str, object]) -> None:
            if self._drain.begun and message["type"] == "http.response.start":
                message = _closing(message)
            await send(message)

        await self._app(scope, receive, sent)


def _closing(message: Message) -> Message:
    return {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}


class DrainingServer(uvicorn.Server):
    """Accepts connections for `delay` after the first signal; a second signal ends the delay."""

    def __init__(self, config: uvicorn.Config, *, drain: Drain, delay: timedelta) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay = delay

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal.

        uvicorn would raise it again after shutdown; here a requested shutdown exits with 0.
        """
        again, delay = self._drain.begun, self._delay
        self._drain.begin()
        if again and sig == signal.SIGINT:
            self.force_exit = True
        if again or sig == signal.SIGINT or not delay:
            self.should_exit = True
        else:
            log.info("api.draining", seconds=delay.total_seconds())
            asyncio.get_running_loop().call_later(delay.total_seconds(), self._stop)

    def _stop(self) -> None:
        self.should_exit = True
