"""Health probes: liveness checks nothing else, readiness checks the database and its migrations."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response
from register_api.http.responses import json_response
from register_api.schema.response_models import Health
from store.db import migrate
from store.db.pool import Pool, StoreUnavailable, connection


class ProbeRoutes:
    """Handlers of the health endpoints."""

    def __init__(self, pool: Pool, draining: Callable[[], bool]) -> None:
        """`draining` returns whether the process is shutting down."""
        self._pool = pool
        self._draining = draining

    async def healthz(self, request: Request) -> Response:
        """`GET /healthz`: the process is running."""
        return json_response(request, Health(status="ok"))

    async def readyz(self, request: Request) -> Response:
        """`GET /readyz`: the process is not shutting down, and the database has all migrations."""
        if self._draining():
            return error_response(request, ErrorCode.NOT_READY, ErrorDetail(error="not ready: shutting down"))
        try:
            async with connection(self._pool) as conn:
                missing = await migrate.pending(conn)
        except StoreUnavailable as error:
            detail = ErrorDetail(error=f"not ready: database unavailable ({error})")
            return error_response(request, ErrorCode.NOT_READY, detail)
        if missing:
            detail = ErrorDetail(error=f"not ready: migrations missing: {', '.join(missing)}")
            return error_response(request, ErrorCode.NOT_READY, detail)
        return json_response(request, Health(status="ready"))
