"""From a path to the handler that answers: by one look where it is fixed, by Starlette's routes elsewhere.

Every failure becomes an answer here, or there: both are told how by the same functions.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from register_api.observability.request_context import Handler

OnError = Callable[[Request, Exception], Awaitable[Response]]


class Methods:
    """One path of Starlette's, so that a 405 names all that it takes (RFC 9110, section 15.5.6).

    An ASGI application: around a function Starlette puts a second net for exceptions.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a method that the path takes."""
        request = Request(scope, receive, send)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        response = await self._handlers[method](request)
        await response(scope, receive, send)


class FixedPaths:
    """What boxes call all the time, beats above all, without the way through Starlette's layers.

    It raises what no handler of errors is for, once it is answered, as Starlette does: the server logs it.
    """

    def __init__(
        self,
        handlers: Mapping[tuple[str, str], Handler],
        *,
        others: ASGIApp,
        on_error: Mapping[type[Exception], OnError],
    ) -> None:
        """`handlers` by method and path; what is not among them is left to `others`."""
        self._handlers = handlers
        self._others = others
        self._expected = {kind: answer for kind, answer in on_error.items() if kind is not Exception}
        self._unexpected = on_error[Exception]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call."""
        handler = self._handlers.get((scope.get("method", ""), scope.get("path", "")))
        if handler is None:
            await self._others(scope, receive, send)
            return
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except tuple(self._expected) as error:
            answer = next(answer for kind, answer in self._expected.items() if isinstance(error, kind))
            response = await answer(request, error)
        except Exception as error:
            response = await self._unexpected(request, error)
            await response(scope, receive, send)
            raise
        await response(scope, receive, send)
