"""Whether the API is fit to serve: liveness asks nobody, readiness asks the database."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from register_api.answers import Code
from register_api.documents import Health
from register_api.errors import ErrorDetail, error_response
from register_api.replies import answer
from store import migrate
from store.pool import Pool, StoreUnavailable, connection


class ProbeRoutes:
    """The handlers, the pool that they look into, and whether the process is about to end."""

    def __init__(self, pool: Pool, draining: Callable[[], bool]) -> None:
        self._pool = pool
        self._draining = draining

    async def healthz(self, request: Request) -> Response:
        """`GET /healthz`: the process answers; nothing else is asked."""
        return answer(request, Health(status="ok"))

    async def readyz(self, request: Request) -> Response:
        """`GET /readyz`: the database answers, has what this code needs, and the process is to stay."""
        if self._draining():
            return error_response(request, Code.NOT_READY, ErrorDetail(error="not ready: shutting down"))
        try:
            async with connection(self._pool) as conn:
                missing = await migrate.pending(conn)
        except StoreUnavailable as error:
            detail = ErrorDetail(error=f"not ready: database unavailable ({error})")
            return error_response(request, Code.NOT_READY, detail)
        if missing:
            detail = ErrorDetail(error=f"not ready: migrations missing: {', '.join(missing)}")
            return error_response(request, Code.NOT_READY, detail)
        return answer(request, Health(status="ready"))
