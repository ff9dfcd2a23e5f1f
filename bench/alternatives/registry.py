"""The alternative designs' register API: as in the incident, the first caller gets the token.

Rationale of such a team: tokens are stored as hashes and never issued twice. A workspace whose tokens are all
revoked has a new box underway, so its first register call mints one. Any other caller without a live token is
unauthorized, because anything else would admit unknown callers.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import uvicorn
from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

Pool: TypeAlias = AsyncConnectionPool[AsyncConnection[TupleRow]]

SCHEMA = """
CREATE TABLE IF NOT EXISTS workspaces (
    workspace_id text PRIMARY KEY, instance_id text, last_heartbeat_at timestamptz,
    locked_by text, locked_until timestamptz
);
CREATE TABLE IF NOT EXISTS tokens (
    sha256 bytea PRIMARY KEY, workspace_id text NOT NULL REFERENCES workspaces, revoked_at timestamptz
);
CREATE TABLE IF NOT EXISTS recreate_requests (
    request_id text PRIMARY KEY, workspace_id text NOT NULL REFERENCES workspaces, requested_by text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT now(), done_at timestamptz
);
"""

OnBeat: TypeAlias = Callable[[str], Awaitable[None]]


class Registry:
    """The handlers."""

    def __init__(self, pool: Pool, on_beat: OnBeat) -> None:
        self._pool = pool
        self._on_beat = on_beat

    async def register(self, request: Request) -> JSONResponse:
        """`POST /registry/register`."""
        workspace_id = str((await request.json())["id"])
        async with self._pool.connection() as conn, conn.transaction():
            # One register call per workspace at a time, so that two cannot both be the first.
            await conn.execute("SELECT FROM workspaces WHERE workspace_id = %s FOR UPDATE", [workspace_id])
            if await _is_live(conn, workspace_id, _bearer(request)):
                return JSONResponse({"status": "registered"})
            cursor = await conn.execute(
                "SELECT count(*) FROM tokens WHERE workspace_id = %s AND revoked_at IS NULL", [workspace_id]
            )
            [(live,)] = await cursor.fetchall()
            if live:
                return _unauthorized()
            token = secrets.token_urlsafe(32)
            await conn.execute(
                "INSERT INTO tokens (sha256, workspace_id) VALUES (%s, %s)", [_sha256(token), workspace_id]
            )
            return JSONResponse({"status": "registered", "auth_token": token})

    async def heartbeat(self, request: Request) -> JSONResponse:
        """`POST /registry/heartbeat`."""
        workspace_id = str((await request.json())["workspace_id"])
        async with self._pool.connection() as conn:
            if not await _is_live(conn, workspace_id, _bearer(request)):
                return _unauthorized()
        await self._on_beat(workspace_id)
        return JSONResponse({"status": "ok"})


async def revoke_tokens(conn: AsyncConnection[TupleRow], workspace_id: str) -> None:
    """Revoke the tokens of a workspace that is reprovisioned, so that the old box cannot continue."""
    await conn.execute(
        "UPDATE tokens SET revoked_at = now() WHERE workspace_id = %s AND revoked_at IS NULL", [workspace_id]
    )


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Pool]:
    """Open a pool for the block."""
    pool: Pool = AsyncConnectionPool(database_url, min_size=1, max_size=8, open=False)
    await pool.open()
    try:
        yield pool
    finally:
        await pool.close()


async def serve(pool: Pool, on_beat: OnBeat, *, port: int, more: tuple[Route, ...] = ()) -> None:
    """Serve until SIGTERM."""
    registry = Registry(pool, on_beat)
    routes = [
        Route("/registry/register", registry.register, methods=["POST"]),
        Route("/registry/heartbeat", registry.heartbeat, methods=["POST"]),
        *more,
    ]
    config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="warning")
    await uvicorn.Server(config).serve()


async def _is_live(conn: AsyncConnection[TupleRow], workspace_id: str, token: str) -> bool:
    cursor = await conn.execute(
        "SELECT 1 FROM tokens WHERE sha256 = %s AND workspace_id = %s AND revoked_at IS NULL",
        [_sha256(token), workspace_id],
    )
    return await cursor.fetchone() is not None


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


def _sha256(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _unauthorized() -> JSONResponse:
    return JSONResponse({"error": "invalid workspace auth token"}, status_code=401)
