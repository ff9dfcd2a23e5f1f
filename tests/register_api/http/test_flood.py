"""A flood of unknown callers against a real process does not delay proven boxes."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from devstack.console import eventually
from register_api.auth.priority_pool import UNKNOWN_QUEUE_LIMIT
from tests.register_api.calling import Answer, call
from tests.register_api.http.database_proxy import Proxy
from tests.register_api.platform import Box, Platform
from tests.register_api.serving import api_process

pytestmark = pytest.mark.anyio

UNKNOWN_CALLERS = 400
"""Concurrent unknown callers from one address: more than may queue."""

PAUSE_SECONDS = 3.0
"""Pause after each response, so that database connections are the bottleneck and not the test's CPU."""

SLOW_SECONDS = 0.25
"""Delay of each statement about the flooded workspace: without a queue it would hold all connections."""

POOL_SIZE = 8
PROVEN = 20
PATIENCE_SECONDS = 60.0
"""Timeout of each call: a slow machine must not turn a late response into a lost one."""

AT_ONCE = 4
"""Concurrent proven boxes: fewer than the connections that unknown callers cannot take."""
HEARTBEATS = 5


@dataclass(frozen=True)
class Caller:
    """A proven box at its own address, which retries until it gets a 200 and counts the responses."""

    port: int
    box: Box
    source: str
    statuses: Counter[int] = field(default_factory=Counter, compare=False)

    async def register(self) -> str:
        """Register with the bootstrap secret; the token."""
        body = {"id": self.box.workspace_id, "url": ""}
        answer = await self._call("/registry/register", body, secret=self.box.secret)
        return str(answer.body["auth_token"])

    async def register_again(self, token: str) -> None:
        await self._call("/registry/register", {"id": self.box.workspace_id, "url": ""}, bearer=token)

    async def heartbeat(self, token: str) -> None:
        body = {"workspace_id": self.box.workspace_id, "active_tasks": 0}
        await self._call("/registry/heartbeat", body, bearer=token)

    async def live(self, token: str | None) -> None:
        """Send as many calls as a box sends in minutes, without pauses."""
        token = token or await self.register()
        for _ in range(HEARTBEATS):
            await self.heartbeat(token)
        await self.register_again(token)

    async def _call(
        self, path: str, body: Mapping[str, object], *, bearer: str | None = None, secret: str | None = None
    ) -> Answer:
        while True:
            answer = await call(
                self.port,
                path,
                body,
                source=self.source,
                bearer=bearer,
                secret=secret,
                seconds=PATIENCE_SECONDS,
            )
            self.statuses[answer.status] += 1
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                assert answer.status == HTTPStatus.OK, (path, answer)
                return answer


@asynccontextmanager
async def flood(port: int, workspace_id: str) -> AsyncIterator[Counter[int]]:
    """Unknown callers that know a workspace's ID; counts their responses by status."""
    statuses: Counter[int] = Counter()

    async def unknown_caller() -> None:
        while True:
            # One body fits both calls: each ignores the member that names the workspace for the other.
            body = {"id": workspace_id, "workspace_id": workspace_id, "url": "http://203.0.113.1:80"}
            path = random.choice(["/registry/register", "/registry/heartbeat"])
            bearer = random.choice([None, "x", secrets.token_urlsafe(32)])
            answer = await call(port, path, body, source="127.0.0.1", bearer=bearer, seconds=PATIENCE_SECONDS)
            statuses[answer.status] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        unknown_callers = [group.create_task(unknown_caller()) for _ in range(UNKNOWN_CALLERS)]
        try:
            yield statuses
        finally:
            for task in unknown_callers:
                task.cancel()


async def test_a_flood_of_unknown_callers_does_not_starve_proven_boxes(
    database: str, platform: Platform
) -> None:
    boxes = [await platform.workspace() for _ in range(PROVEN)]
    crowded = (await platform.workspace("ws-crowded")).workspace_id
    async with Proxy(database, slow=(crowded.encode(), SLOW_SECONDS)).running() as proxy:
        with api_process(proxy.url, pool_size=POOL_SIZE, pool_minimum=POOL_SIZE) as process:
            callers = [Caller(process.port, box, f"127.0.0.{10 + n}") for n, box in enumerate(boxes)]
            known: dict[Caller, str] = {}
            for caller in callers[: PROVEN // 2]:
                known[caller] = await caller.register()
                await caller.heartbeat(known[caller])

            async def connections() -> int:
                cursor = await platform.database.execute(
                    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'onebox-api'"
                )
                [row] = await cursor.fetchall()
                return int(row["n"])

            # Wait until all connections are open, so that no call waits for a new one.
            await eventually(connections, lambda count: count == POOL_SIZE, seconds=PATIENCE_SECONDS)
            turns = asyncio.Semaphore(AT_ONCE)

            async def live(caller: Caller) -> None:
                async with turns:
                    await caller.live(known.get(caller))

            async with flood(process.port, crowded) as statuses:

                async def refused() -> int:
                    return statuses[503]

                async def served() -> int:
                    return statuses[401]

                # The remaining callers queue, or have a slot.
                await eventually(
                    refused,
                    lambda count: count >= UNKNOWN_CALLERS - UNKNOWN_QUEUE_LIMIT - POOL_SIZE,
                    seconds=PATIENCE_SECONDS,
                )
                await asyncio.gather(*map(live, callers))
                # Some unknown callers are served, too; the boxes may finish before the first of them.
                await eventually(served, bool, seconds=PATIENCE_SECONDS)
    # On a busy machine some callers get no response in time.
    assert statuses.keys() - {0} == {401, 503}
    proven = sum((caller.statuses for caller in callers), Counter[int]())
    # On a busy machine some wait too long; without priority, nearly all would.
    assert proven[503] <= proven[200] // 10, proven
