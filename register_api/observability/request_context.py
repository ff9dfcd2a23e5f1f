"""ASGI middleware that binds the request's ID to its log lines and records its metrics."""

import time
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, bound_contextvars, unbind_contextvars

from register_api.http.errors import CODE_SCOPE_KEY, request_id
from register_api.observability import metrics

Handler = Callable[[Request], Awaitable[Response]]

_OPERATION = "onebox.operation"
_WORKSPACE = "workspace"


class RequestContextMiddleware:
    """The outermost middleware, so that it also counts requests that a limit refuses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application, then record the response's status, code and duration."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def send_and_record(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with bound_contextvars(request_id=request_id(scope)):
                await self._app(scope, receive, send_and_record)
        finally:
            unbind_contextvars(_WORKSPACE)  # the next request in this context is about another workspace
            # The status stays 0 if the caller disconnected before there was a response.
            operation = scope.get(_OPERATION, metrics.UNROUTED)
            code = scope.get(CODE_SCOPE_KEY, metrics.OK)
            metrics.CALLS.labels(operation, str(status), code).inc()
            metrics.CALL_SECONDS.labels(operation).observe(time.monotonic() - started)


def set_request_fields(operation: str, handler: Handler) -> Handler:
    """The handler, with the operation's name set for metrics and the path's workspace set for log lines."""

    async def handle(request: Request) -> Response:
        request.scope[_OPERATION] = operation
        workspace_id = request.path_params.get("workspace_id")
        if workspace_id is not None:
            log_context(str(workspace_id))
        return await handler(request)

    return handle


def log_context(workspace_id: str) -> None:
    """Bind the workspace to all further log lines of this request."""
    bind_contextvars(**{_WORKSPACE: workspace_id})
