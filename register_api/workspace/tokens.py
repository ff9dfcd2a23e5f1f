"""Handlers that list, create and revoke the tokens of a workspace.

API tokens are for a workspace's tools and never identify a box. A token's value is returned only on creation.
"""

import secrets
from datetime import UTC
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api.auth.access import Access, AuthorizedCaller
from register_api.auth.credentials import Credentials, read_credentials
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.refusals import refusal_response
from register_api.auth.rules import Permission, Refused
from register_api.http.config import ApiConfig
from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response, request_id
from register_api.http.responses import json_response
from register_api.schema import request_models
from register_api.schema.response_models import Token, TokenCreated, TokenList, TokenRevoked
from store.db.pool import Connection
from store.registration import api_tokens
from store.registration.credentials import token_hash, token_prefix

API_TOKENS_LIMIT = 100
"""Live API tokens per workspace."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TokenRoutes:
    """Handlers of the token endpoints."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, access: Access) -> None:
        self._config = config
        self._pool = pool
        self._access = access

    async def index(self, request: Request) -> Response:
        """`GET /workspaces/{id}/tokens`."""
        workspace_id, credentials = self._read_request(request)
        async with self._pool.connection(credentials) as conn:
            authorized = await self._authorize(conn, request, workspace_id, credentials)
            if isinstance(authorized, Response):
                return authorized
            rows = await api_tokens.list_live(conn, workspace_id)
        tokens = [_token(row) for row in rows]
        return json_response(request, TokenList(tokens=tokens, count=len(tokens)))

    async def create(self, request: Request) -> Response:
        """`POST /workspaces/{id}/tokens`."""
        body = request_models.parse_body(request_models.TokenBody, await request.body() or b"{}")
        workspace_id, credentials = self._read_request(request)
        async with (
            self._pool.connection(credentials) as conn,
            conn.transaction(),
        ):
            authorized = await self._authorize(conn, request, workspace_id, credentials)
            if isinstance(authorized, Response):
                return authorized
            token = secrets.token_urlsafe(32)
            prefix = token_prefix(token)
            token_id = await api_tokens.create(
                conn,
                workspace_id,
                name=body.name,
                sha256=token_hash(token),
                prefix=prefix,
                created_by=authorized.actor,
                limit=API_TOKENS_LIMIT,
            )
            if token_id is None:
                deleted = authorized.caller.workspace is not None and authorized.caller.workspace.is_deleted
                code = ErrorCode.WORKSPACE_UNKNOWN if deleted else ErrorCode.TOKENS_LIMITED
                return error_response(request, code, ErrorDetail(workspace_id=workspace_id))
            await self._record_action(conn, request, workspace_id, credentials, "created", authorized, prefix)
        created = TokenCreated(
            id=str(token_id),
            auth_token=token,
            workspace_id=workspace_id,
            name=body.name,
            prefix=prefix,
            message="Store this token now: it is not shown again.",
        )
        return json_response(request, created, status=201)

    async def revoke(self, request: Request) -> Response:
        """`DELETE /workspaces/{id}/tokens/{token_id}`."""
        workspace_id, credentials = self._read_request(request)
        token_id = _uuid(request.path_params["token_id"])
        async with (
            self._pool.connection(credentials) as conn,
            conn.transaction(),
        ):
            authorized = await self._authorize(conn, request, workspace_id, credentials)
            if isinstance(authorized, Response):
                return authorized
            prefix = None if token_id is None else await api_tokens.revoke(conn, workspace_id, token_id)
            if prefix is None:
                return error_response(
                    request, ErrorCode.TOKEN_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
                )
            await self._record_action(conn, request, workspace_id, credentials, "revoked", authorized, prefix)
        return json_response(request, TokenRevoked())

    def _read_request(self, request: Request) -> tuple[str, Credentials]:
        workspace_id = request.path_params["workspace_id"]
        return workspace_id, read_credentials(request, self._config, workspace_id=workspace_id)

    async def _authorize(
        self, conn: Connection, request: Request, workspace_id: str, credentials: Credentials
    ) -> AuthorizedCaller | Response:
        authorized = await self._access.check(
            conn, request, Permission.MANAGE_TOKENS, workspace_id, credentials
        )
        if isinstance(authorized, Refused):
            return refusal_response(request, authorized, workspace_id=workspace_id, credentials=credentials)
        if authorized.found is None:
            return error_response(
                request, ErrorCode.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
            )
        return authorized

    async def _record_action(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        credentials: Credentials,
        action: str,
        authorized: AuthorizedCaller,
        prefix: str,
    ) -> None:
        await self._access.audit(
            conn,
            request,
            workspace_id,
            credentials,
            call=f"token {action}",
            code=action,
            caller=authorized,
            token_prefix=prefix,
        )
        _log.info(
            f"token.{action}",
            workspace=workspace_id,
            actor=authorized.actor,
            token_prefix=prefix,
            request_id=request_id(request.scope),
        )


def _token(row: api_tokens.TokenRow) -> Token:
    return Token.model_validate(
        {
            "id": str(row.token_id),
            "kind": row.kind,
            "name": row.name,
            "prefix": row.prefix,
            "state": row.state,
            "generation": row.generation,
            "created_by": row.created_by,
            "created_at": row.created_at.astimezone(UTC),
            "last_used_at": None if row.last_used_at is None else row.last_used_at.astimezone(UTC),
        }
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
