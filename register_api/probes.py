"""Whether the API is fit to serve: liveness asks nobody, readiness asks the database."""

from starlette.requests import Request
from starlette.responses import Response

from register_api.answers import Code
from register_api.documents import Health
from register_api.errors import ErrorDetail, error_response
from register_api.replies import answer
from store import migrate
from store.pool import Pool, StoreUnavailable, connection


class ProbeRoutes:
    """The handlers, and the pool that they look into."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def healthz(self, request: Request) -> Response:
        """`GET /healthz`: the process answers; nothing else is asked."""
        return answer(request, Health(status="ok"))

    async def readyz(self, request: Request) -> Response:
        """`GET /readyz`: the database answers, and has what this code needs."""
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
