"""The tokens of a workspace as people manage them: list, create, revoke.

API tokens are for a workspace's tools; they are no evidence of a box. A token's text leaves here once.
"""

import secrets
from datetime import UTC
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api import schemas
from register_api.access import Access, Admitted
from register_api.answers import Code
from register_api.config import ApiConfig
from register_api.decision import Refused, Right
from register_api.documents import Token, TokenCreated, TokenList, TokenRevoked
from register_api.errors import ErrorDetail, error_response, request_id
from register_api.evidence import Credentials, read_credentials
from register_api.lanes import Lanes
from register_api.replies import answer, refusal
from store import api_tokens
from store.credentials import token_hash, token_prefix
from store.pool import Connection

API_TOKENS_LIMIT = 100
"""Of one workspace; more of them are nobody's any longer."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class TokenRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, lanes: Lanes, access: Access) -> None:
        self._config = config
        self._lanes = lanes
        self._access = access

    async def index(self, request: Request) -> Response:
        """`GET /workspaces/{id}/tokens`."""
        workspace_id, credentials = self._read(request)
        async with self._lanes.connection(credentials) as conn:
            admitted = await self._admit(conn, request, workspace_id, credentials)
            if isinstance(admitted, Response):
                return admitted
            rows = await api_tokens.live(conn, workspace_id)
        tokens = [_token(row) for row in rows]
        return answer(request, TokenList(tokens=tokens, count=len(tokens)))

    async def create(self, request: Request) -> Response:
        """`POST /workspaces/{id}/tokens`."""
        body = schemas.read(schemas.TokenBody, await request.body() or b"{}")
        workspace_id, credentials = self._read(request)
        async with (
            self._lanes.connection(credentials) as conn,
            conn.transaction(),
        ):
            admitted = await self._admit(conn, request, workspace_id, credentials)
            if isinstance(admitted, Response):
                return admitted
            token = secrets.token_urlsafe(32)
            prefix = token_prefix(token)
            token_id = await api_tokens.create(
                conn,
                workspace_id,
                name=body.name,
                sha256=token_hash(token),
                prefix=prefix,
                created_by=admitted.by,
                most=API_TOKENS_LIMIT,
            )
            if token_id is None:
                deleted = admitted.caller.standing is not None and admitted.caller.standing.is_deleted
                code = Code.WORKSPACE_UNKNOWN if deleted else Code.TOKENS_LIMITED
                return error_response(request, code, ErrorDetail(workspace_id=workspace_id))
            await self._done(conn, request, workspace_id, credentials, "created", admitted, prefix)
        created = TokenCreated(
            id=str(token_id),
            auth_token=token,
            workspace_id=workspace_id,
            name=body.name,
            prefix=prefix,
            message="Keep this token now: it is not shown again.",
        )
        return answer(request, created, status=201)

    async def revoke(self, request: Request) -> Response:
        """`DELETE /workspaces/{id}/tokens/{token_id}`."""
        workspace_id, credentials = self._read(request)
        token_id = _uuid(request.path_params["token_id"])
        async with (
            self._lanes.connection(credentials) as conn,
            conn.transaction(),
        ):
            admitted = await self._admit(conn, request, workspace_id, credentials)
            if isinstance(admitted, Response):
                return admitted
            prefix = None if token_id is None else await api_tokens.revoke(conn, workspace_id, token_id)
            if prefix is None:
                return error_response(request, Code.TOKEN_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
            await self._done(conn, request, workspace_id, credentials, "revoked", admitted, prefix)
        return answer(request, TokenRevoked())

    def _read(self, request: Request) -> tuple[str, Credentials]:
        workspace_id = request.path_params["workspace_id"]
        return workspace_id, read_credentials(request, self._config, workspace_id=workspace_id)

    async def _admit(
        self, conn: Connection, request: Request, workspace_id: str, credentials: Credentials
    ) -> Admitted | Response:
        admitted = await self._access.check(conn, request, Right.MANAGE_TOKENS, workspace_id, credentials)
        if isinstance(admitted, Refused):
            return refusal(request, admitted, workspace_id=workspace_id, credentials=credentials)
        if admitted.found is None:
            return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
        return admitted

    async def _done(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        credentials: Credentials,
        what: str,
        admitted: Admitted,
        prefix: str,
    ) -> None:
        await self._access.audit(
            conn,
            request,
            workspace_id,
            credentials,
            call=f"token {what}",
            code=what,
            admitted=admitted,
            token_prefix=prefix,
        )
        _log.info(
            f"token.{what}",
            workspace=workspace_id,
            by=admitted.by,
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
