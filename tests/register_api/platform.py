"""The register API as tests use it: workspaces to be made, boxes that call, rows to be looked at."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import LiteralString

import httpx
import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from register_api.app import create_app
from register_api.http.config import ApiConfig
from register_api.http.limits import Limits
from store.db.pool import Pool, open_pool
from store.registration.credentials import ServerKeys

KEYS = ServerKeys.parse("k1:" + "ab" * 32)
OPERATOR_TOKEN = "operator-token-of-the-tests"
CONFIG = ApiConfig(
    keys=KEYS,
    operator_token_hashes=frozenset({hashlib.sha256(OPERATOR_TOKEN.encode()).digest()}),
    limits=Limits(body_seconds=0.5),
)
PATIENCE = timedelta(seconds=30)
"""For a lock or a connection that a call is to get, however slow the machine is. It costs nothing then."""

HURRY = timedelta(milliseconds=500)
"""For one that it is not to get."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Box:
    """A box as it calls the API: its workspace, its generation, and what it holds."""

    client: httpx.AsyncClient
    workspace_id: str
    generation: int
    token: str | None = None

    @property
    def secret(self) -> str:
        return KEYS.bootstrap_secret(self.workspace_id, self.generation, key_id="k1")

    def headers(self, *, bearer: str | None = None, secret: bool = False) -> dict[str, str]:
        bearer = bearer or self.token
        return {
            **({} if bearer is None else {"authorization": f"Bearer {bearer}"}),
            **({"x-bootstrap-token": self.secret} if secret else {}),
        }

    async def register(
        self, *, bearer: str | None = None, secret: bool = False, **members: object
    ) -> httpx.Response:
        body = {"id": self.workspace_id, "url": "", **members}
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.post("/registry/register", json=body, headers=headers)

    async def beat(
        self, *, bearer: str | None = None, secret: bool = False, **members: object
    ) -> httpx.Response:
        body = {"workspace_id": self.workspace_id, "active_tasks": 0, **members}
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.post("/registry/heartbeat", json=body, headers=headers)

    async def state(self, *, bearer: str | None = None, secret: bool = False) -> httpx.Response:
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.get(f"/workspaces/{self.workspace_id}/state", headers=headers)

    async def record(self, *, bearer: str | None = None, secret: bool = False) -> httpx.Response:
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.get(f"/workspaces/{self.workspace_id}", headers=headers)

    async def enter(self) -> "Box":
        """Register with the bootstrap secret; the box with its pending token."""
        answer = await self.register(secret=True)
        assert answer.status_code == 200, answer.text
        return replace(self, token=answer.json()["auth_token"])

    async def enter_and_use(self) -> "Box":
        """The same, and one beat: the token is active."""
        box = await self.enter()
        answer = await box.beat()
        assert answer.status_code == 200, answer.text
        return box


@dataclass(frozen=True)
class Platform:
    """The API, and its database from behind."""

    client: httpx.AsyncClient
    pool: Pool
    database: AsyncConnection[DictRow]

    def hurry(self) -> None:
        """From now on calls don't wait long for a connection: there will be none."""
        self.pool.timeout = HURRY.total_seconds()

    async def workspace(self, name: str | None = None) -> Box:
        """A new workspace with its first generation open; the box that belongs to it."""
        workspace_id = name or f"ws-{next(_numbers)}"
        await self.database.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [workspace_id])
        return await self.replaced(Box(self.client, workspace_id, 0))

    async def replaced(self, box: Box) -> Box:
        """Open the next generation; the box that belongs to it."""
        await self.close(box)
        await self.database.execute(
            "INSERT INTO generations (workspace_id, generation, key_id, spec) VALUES (%s, %s, 'k1', '{}')",
            [box.workspace_id, box.generation + 1],
        )
        await self.database.execute(
            "INSERT INTO heartbeats (workspace_id, generation) VALUES (%s, %s) ON CONFLICT (workspace_id)"
            " DO UPDATE SET generation = excluded.generation, last_heartbeat_at = NULL, stale_since = NULL,"
            " unauthenticated_count = 0, credential_lost_at = NULL",
            [box.workspace_id, box.generation + 1],
        )
        await self.database.execute(
            "UPDATE workspaces SET generation = %s WHERE workspace_id = %s",
            [box.generation + 1, box.workspace_id],
        )
        return Box(self.client, box.workspace_id, box.generation + 1)

    async def close(self, box: Box) -> None:
        """Supersede the generation and revoke its tokens."""
        async with self.database.transaction():
            await self.database.execute(
                "UPDATE generations SET superseded_at = now() WHERE workspace_id = %s", [box.workspace_id]
            )
            await self.database.execute(
                "UPDATE tokens SET state = 'revoked', nonce = NULL, revoked_at = now()"
                " WHERE workspace_id = %s",
                [box.workspace_id],
            )

    async def intend(self, box: Box, intent: str) -> None:
        """Stop or delete the workspace."""
        await self.close(box)
        await self.database.execute(
            "UPDATE workspaces SET intent = %s WHERE workspace_id = %s", [intent, box.workspace_id]
        )

    async def age(self, box: Box, duration: timedelta) -> None:
        """Let time pass since the last use of tokens and the last beat."""
        await self.database.execute(
            "UPDATE tokens SET last_used_at = last_used_at - %s, created_at = created_at - %s"
            " WHERE workspace_id = %s",
            [duration, duration, box.workspace_id],
        )
        await self.database.execute(
            "UPDATE heartbeats SET last_heartbeat_at = last_heartbeat_at - %s WHERE workspace_id = %s",
            [duration, box.workspace_id],
        )

    async def rows(self, query: LiteralString, box: Box) -> list[DictRow]:
        """Rows about the box's workspace."""
        return await (await self.database.execute(query, [box.workspace_id])).fetchall()

    async def tokens(self, box: Box) -> list[str]:
        """The states of the workspace's tokens, oldest first."""
        query: LiteralString = "SELECT state FROM tokens WHERE workspace_id = %s ORDER BY created_at"
        return [row["state"] for row in await self.rows(query, box)]

    async def facts(self, box: Box) -> list[tuple[int, str]]:
        """Generation and kind of the facts, oldest first."""
        query: LiteralString = (
            "SELECT generation, kind FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id"
        )
        return [(row["generation"], row["kind"]) for row in await self.rows(query, box)]

    async def everything(self, box: Box) -> list[Mapping[str, object]]:
        """All rows about the workspace: what must not change when nothing may change."""
        queries: tuple[LiteralString, ...] = (
            "SELECT * FROM workspaces WHERE workspace_id = %s",
            "SELECT * FROM generations WHERE workspace_id = %s ORDER BY generation",
            "SELECT * FROM tokens WHERE workspace_id = %s ORDER BY created_at",
            "SELECT * FROM heartbeats WHERE workspace_id = %s",
            "SELECT * FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id",
        )
        return [row for query in queries for row in await self.rows(query, box)]


async def insisting(call: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """As a box does it: a call that waited too long for its turn, on a slow machine, is made again."""
    while (answer := await call()).status_code == 503 and answer.json()["code"] == "platform_unavailable":
        pass
    return answer


@asynccontextmanager
async def platform_on(
    database: str, config: ApiConfig = CONFIG, *, lock_timeout: timedelta = PATIENCE
) -> AsyncIterator[Platform]:
    """The API on a database. Its callers don't insist, so it is patient: a 503 is none of a slow machine."""
    async with (
        open_pool(
            database,
            maximum=8,
            statement_timeout=2 * PATIENCE,
            lock_timeout=lock_timeout,
            checkout_timeout=PATIENCE,
        ) as pool,
        await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as conn,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(config, pool), raise_app_exceptions=False),
            base_url="http://platform",
        ) as client,
    ):
        yield Platform(client, pool, conn)
