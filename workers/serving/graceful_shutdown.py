"""Ending a server behind a load balancer: first not ready, then a pause, then no new connections.

Between the two it serves as ever, but asks clients for new connections: those go to another process.
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
    """Whether the end has begun."""

    def __init__(self) -> None:
        self._begun = False

    @property
    def begun(self) -> bool:
        """Whether the process was asked to end."""
        return self._begun

    def begin(self) -> None:
        """From now on: not ready."""
        self._begun = True


class DrainingMiddleware:
    """ASGI middleware: answers of a draining process end their connections."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sent(message: MutableMapping[str, object]) -> None:
            if self._drain.begun and message["type"] == "http.response.start":
                message = _closing(message)
            await send(message)

        await self._app(scope, receive, sent)


def _closing(message: Message) -> Message:
    return {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}


class DrainingServer(uvicorn.Server):
    """Takes connections for `delay` after the first signal; a second one cuts that short."""

    def __init__(self, config: uvicorn.Config, *, drain: Drain, delay: timedelta) -> None:
        super().__init__(config)
        self._drain = drain
        self._delay = delay

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal came. uvicorn would raise it again at the end; an end that was asked for exits with 0."""
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
