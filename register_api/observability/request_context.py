"""ASGI middleware: the request's ID on its log lines, its figures, and what handlers say of it on the way.

It sees no body and changes no answer.
"""

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, reset_contextvars, unbind_contextvars

from register_api.http.errors import request_id
from register_api.observability import metrics

Handler = Callable[[Request], Awaitable[Response]]

_OPERATION = "onebox.operation"
_WORKSPACE = "workspace"


class RequestContextMiddleware:
    """Outermost: what is refused for its size or its haste counts, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the call on, and note what became of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        # As `bound_contextvars` does it, but for its look at all variables of the context.
        outer = bind_contextvars(request_id=request_id(scope))
        try:
            await self._app(scope, receive, send_and_record)
        finally:
            reset_contextvars(**outer)
            unbind_contextvars(_WORKSPACE)  # whatever runs next in this context is about another
            # Without an answer the caller went away, or the server answers for an error of ours.
            operation = scope.get(_OPERATION, metrics.UNROUTED)
            code = scope.get("onebox.code", metrics.OK)
            metrics.calls(operation, str(status), code).inc()
            metrics.seconds(operation).observe(time.monotonic() - started)


def set_request_fields(operation: str, handler: Handler) -> Handler:
    """The handler, with its operation and the path's workspace known to what surrounds it."""

    async def handle(request: Request) -> Response:
        request.scope[_OPERATION] = operation
        workspace_id = request.path_params.get("workspace_id")
        if workspace_id is not None:
            log_context(str(workspace_id))
        return await handler(request)

    return handle


def log_context(workspace_id: str) -> None:
    """The request is about this workspace: from now on its log lines say so."""
    bind_contextvars(**{_WORKSPACE: workspace_id})
