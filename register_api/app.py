"""The register API as an ASGI application: routes, limits, and an answer for every failure.

Opens nothing: configuration and pool come from whoever runs it.
"""

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from register_api.answers import Code
from register_api.config import ApiConfig
from register_api.errors import ErrorDetail, error_response, request_id
from register_api.limits import Bounded
from register_api.reads import ReadRoutes
from register_api.routes import BoxRoutes
from register_api.schemas import BodyInvalid
from store.pool import Pool, StoreUnavailable

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def create_app(config: ApiConfig, pool: Pool) -> FastAPI:
    """The application; it is stateless, so any number of processes may serve it."""
    app = FastAPI(title="Onebox register API", openapi_url=None)
    app.add_middleware(Bounded, limits=config.limits)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(BodyInvalid, _on_body_invalid)
    app.add_exception_handler(StoreUnavailable, _on_store_unavailable)
    app.add_exception_handler(Exception, _on_exception)
    boxes, reads = BoxRoutes(config, pool), ReadRoutes(config, pool)
    for method, path, handler in (
        ("POST", "/registry/register", boxes.register),
        ("POST", "/registry/heartbeat", boxes.heartbeat),
        ("GET", "/workspaces/{workspace_id}", reads.record),
        ("GET", "/workspaces/{workspace_id}/state", reads.state),
        ("GET", "/healthz", reads.healthz),
        ("GET", "/readyz", reads.readyz),
    ):
        app.add_api_route(path, handler, methods=[method], response_model=None)
    return app


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    code = {404: Code.PATH_UNKNOWN, 405: Code.METHOD_NOT_ALLOWED}.get(status, Code.BODY_INVALID)
    return error_response(request, code, ErrorDetail(headers=dict(headers or {})))


async def _on_body_invalid(request: Request, error: Exception) -> Response:
    return error_response(request, Code.BODY_INVALID, ErrorDetail(error=str(error)))


async def _on_store_unavailable(request: Request, error: Exception) -> Response:
    _log.warning(
        "store.unavailable", path=request.url.path, cause=str(error), request_id=request_id(request.scope)
    )
    return error_response(request, Code.PLATFORM_UNAVAILABLE)


async def _on_exception(request: Request, error: Exception) -> Response:
    # The server logs the traceback; this line ties it to the request that the caller can name.
    _log.error(
        "request.failed",
        path=request.url.path,
        error=type(error).__name__,
        request_id=request_id(request.scope),
    )
    return error_response(request, Code.INTERNAL_ERROR)
