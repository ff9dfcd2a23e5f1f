"""The register API under test: creates workspaces, calls the API as boxes, and reads the rows."""

import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import LiteralString

import httpx2
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
"""Timeout for a lock or connection that a call must get, however slow the machine is."""

SHORT_TIMEOUT = timedelta(milliseconds=500)
"""Timeout for a lock or connection that a call must not get."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Box:
    """A box as a caller: its workspace, generation and token."""

    client: httpx2.AsyncClient
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
    ) -> httpx2.Response:
        body = {"id": self.workspace_id, "url": "", **members}
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.post("/registry/register", json=body, headers=headers)

    async def heartbeat(
        self, *, bearer: str | None = None, secret: bool = False, **members: object
    ) -> httpx2.Response:
        body = {"workspace_id": self.workspace_id, "active_tasks": 0, **members}
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.post("/registry/heartbeat", json=body, headers=headers)

    async def state(self, *, bearer: str | None = None, secret: bool = False) -> httpx2.Response:
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.get(f"/workspaces/{self.workspace_id}/state", headers=headers)

    async def record(self, *, bearer: str | None = None, secret: bool = False) -> httpx2.Response:
        headers = self.headers(bearer=bearer, secret=secret)
        return await self.client.get(f"/workspaces/{self.workspace_id}", headers=headers)

    async def enter(self) -> "Box":
        """Register with the bootstrap secret; the box with its pending token."""
        answer = await self.register(secret=True)
        assert answer.status_code == 200, answer.text
        return replace(self, token=answer.json()["auth_token"])

    async def enter_and_use(self) -> "Box":
        """Register and send one heartbeat; the box with its active token."""
        box = await self.enter()
        answer = await box.heartbeat()
        assert answer.status_code == 200, answer.text
        return box


@dataclass(frozen=True)
class Platform:
    """The API and a direct connection to its database."""

    client: httpx2.AsyncClient
    pool: Pool
    database: AsyncConnection[DictRow]

    def shorten_checkout_timeout(self) -> None:
        """Shorten the checkout timeout, for tests without a database."""
        self.pool.timeout = SHORT_TIMEOUT.total_seconds()

    async def workspace(self, name: str | None = None) -> Box:
        """Create a workspace with an open first generation; its box."""
        workspace_id = name or f"ws-{next(_numbers)}"
        await self.database.execute("INSERT INTO workspaces (workspace_id) VALUES (%s)", [workspace_id])
        return await self.replaced(Box(self.client, workspace_id, 0))

    async def replaced(self, box: Box) -> Box:
        """Open the next generation; its box."""
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
        """Set the intent: stop or delete the workspace."""
        await self.close(box)
        await self.database.execute(
            "UPDATE workspaces SET intent = %s WHERE workspace_id = %s", [intent, box.workspace_id]
        )

    async def age(self, box: Box, duration: timedelta) -> None:
        """Age the last use of tokens and the last heartbeat."""
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
        """The rows of the box's workspace."""
        return await (await self.database.execute(query, [box.workspace_id])).fetchall()

    async def tokens(self, box: Box) -> list[str]:
        """The states of the workspace's tokens, oldest first."""
        query: LiteralString = "SELECT state FROM tokens WHERE workspace_id = %s ORDER BY created_at"
        return [row["state"] for row in await self.rows(query, box)]

    async def events(self, box: Box) -> list[tuple[int, str]]:
        """Generation and kind of the workspace's events, oldest first."""
        query: LiteralString = (
            "SELECT generation, kind FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id"
        )
        return [(row["generation"], row["kind"]) for row in await self.rows(query, box)]

    async def everything(self, box: Box) -> list[Mapping[str, object]]:
        """All rows of the workspace, to compare before and after a call without effect."""
        queries: tuple[LiteralString, ...] = (
            "SELECT * FROM workspaces WHERE workspace_id = %s",
            "SELECT * FROM generations WHERE workspace_id = %s ORDER BY generation",
            "SELECT * FROM tokens WHERE workspace_id = %s ORDER BY created_at",
            "SELECT * FROM heartbeats WHERE workspace_id = %s",
            "SELECT * FROM workspace_outbox WHERE workspace_id = %s ORDER BY event_id",
        )
        return [row for query in queries for row in await self.rows(query, box)]


async def retry_while_unavailable(call: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
    """Retry while the response is a 503 `platform_unavailable`: a slow machine may exceed a timeout."""
    while (answer := await call()).status_code == 503 and answer.json()["code"] == "platform_unavailable":
        pass
    return answer


@asynccontextmanager
async def platform_on(
    database: str, config: ApiConfig = CONFIG, *, lock_timeout: timedelta = PATIENCE
) -> AsyncIterator[Platform]:
    """The API on a database. Its timeouts are long, because its callers do not retry."""
    async with (
        open_pool(
            database,
            maximum=8,
            statement_timeout=2 * PATIENCE,
            lock_timeout=lock_timeout,
            checkout_timeout=PATIENCE,
        ) as pool,
        await psycopg.AsyncConnection.connect(database, autocommit=True, row_factory=dict_row) as conn,
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(create_app(config, pool), raise_app_exceptions=False),
            base_url="http://platform",
        ) as client,
    ):
        yield Platform(client, pool, conn)
