"""The register API as an ASGI application: routes, limits, and an error body for every failure."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path
from starlette.types import ASGIApp

from register_api.auth.access import Access
from register_api.auth.audit import Auditor
from register_api.auth.priority_pool import PriorityPool
from register_api.delegation.handlers import DelegationRoutes
from register_api.http.config import ApiConfig
from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response, request_id
from register_api.http.limits import LimitsMiddleware
from register_api.observability.probes import ProbeRoutes
from register_api.observability.request_context import Handler, RequestContextMiddleware, set_request_fields
from register_api.registration.routes import BoxRoutes
from register_api.schema import openapi
from register_api.schema.endpoints import OPERATIONS
from register_api.schema.request_models import BodyInvalid
from register_api.workspace.records import ReadRoutes
from register_api.workspace.tokens import TokenRoutes
from store.db.pool import Pool, StoreUnavailable

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def create_app(config: ApiConfig, pool: Pool, *, draining: Callable[[], bool] = lambda: False) -> ASGIApp:
    """The ASGI application. It keeps no state but caches, so any number of processes may serve it.

    `draining` returns whether the process is shutting down: then it still serves, and is not ready.
    """
    starlette = Starlette(
        routes=_routes(_handlers(config, pool, ProbeRoutes(pool, draining))),
        middleware=[
            Middleware(LimitsMiddleware, limits=config.limits, path_body_bytes=_path_body_bytes()),
        ],
        exception_handlers={
            HTTPException: _on_http_exception,
            BodyInvalid: _on_body_invalid,
            StoreUnavailable: _on_store_unavailable,
            Exception: _on_exception,
        },
    )
    # Outside of Starlette's own middleware, so that metrics and log lines include its 500 responses.
    return RequestContextMiddleware(starlette)


def _routes(handlers: Mapping[str, Handler]) -> list[Route]:
    served = json.dumps(openapi.document()).encode()

    async def serve_document(_: Request) -> Response:
        return Response(served, media_type="application/json")

    by_path: dict[str, dict[str, Handler]] = defaultdict(dict)
    for operation in OPERATIONS:
        handler = set_request_fields(operation.name, handlers[operation.name])
        by_path[operation.path][operation.method] = handler
    return [
        *(Route(path, _by_method(methods), methods=list(methods)) for path, methods in by_path.items()),
        Route("/openapi.json", serve_document, methods=["GET"]),
    ]


def _by_method(handlers: Mapping[str, Handler]) -> Handler:
    """One endpoint for a path, so that a 405 lists all methods of the path (RFC 9110, section 15.5.6)."""

    async def handle(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return handle


def _path_body_bytes() -> dict[re.Pattern[str], int]:
    return {
        compile_path(operation.path)[0]: operation.body_bytes
        for operation in OPERATIONS
        if operation.body_bytes is not None
    }


def _handlers(config: ApiConfig, pool: Pool, probes: ProbeRoutes) -> Mapping[str, Handler]:
    priority_pool, auditor = PriorityPool(pool), Auditor()
    access = Access(config, priority_pool, auditor)
    boxes = BoxRoutes(config, priority_pool, auditor)
    reads = ReadRoutes(config, priority_pool, access)
    tokens = TokenRoutes(config, priority_pool, access)
    delegations = DelegationRoutes(config, priority_pool, access)
    return {
        "register": boxes.register,
        "heartbeat": boxes.heartbeat,
        "update_card": boxes.update_card,
        "discover": reads.discover,
        "record": reads.record,
        "state": reads.state,
        "audit_trail": reads.audit_trail,
        "list_tokens": tokens.index,
        "create_token": tokens.create,
        "revoke_token": tokens.revoke,
        "delegate": delegations.delegate,
        "list_delegations": delegations.index,
        "record_delegation": delegations.record,
        "update_delegation": delegations.update,
        "healthz": probes.healthz,
        "readyz": probes.readyz,
    }


async def _on_http_exception(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    code = {404: ErrorCode.PATH_UNKNOWN, 405: ErrorCode.METHOD_NOT_ALLOWED}.get(
        status, ErrorCode.REQUEST_INVALID
    )
    return error_response(request, code, ErrorDetail(headers=dict(headers or {})))


async def _on_body_invalid(request: Request, error: Exception) -> Response:
    return error_response(request, ErrorCode.BODY_INVALID, ErrorDetail(error=str(error)))


async def _on_store_unavailable(request: Request, error: Exception) -> Response:
    _log.warning(
        "database.unavailable", path=request.url.path, cause=str(error), request_id=request_id(request.scope)
    )
    return error_response(request, ErrorCode.PLATFORM_UNAVAILABLE)


async def _on_exception(request: Request, error: Exception) -> Response:
    # uvicorn logs the traceback; this line links it to the request ID that the caller has.
    _log.error(
        "request.failed",
        path=request.url.path,
        error=type(error).__name__,
        request_id=request_id(request.scope),
    )
    return error_response(request, ErrorCode.INTERNAL_ERROR)
