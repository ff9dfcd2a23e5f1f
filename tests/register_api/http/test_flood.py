"""A flood of unknown callers against a real process: proven boxes don't wait behind it."""

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
from tests.register_api.http.cutting import Proxy
from tests.register_api.platform import Box, Platform
from tests.register_api.serving import api_process

pytestmark = pytest.mark.anyio

STRANGERS = 400
"""At once and from one address: more than may wait for a place."""

PAUSE_SECONDS = 3.0
"""After each answer: it is connections to the database that are short here, not the processor of the test."""

SLOW_SECONDS = 0.25
"""Of each statement about the strangers' workspace: without lanes they hold all connections, for minutes."""

POOL_SIZE = 8
PROVEN = 20
PATIENCE_SECONDS = 60.0
"""Of each call, for its answer: on a slow machine it is late, and to be lost is none that is judged here."""

AT_ONCE = 4
"""Of the proven boxes: fewer than the connections that strangers cannot take."""
BEATS = 5


@dataclass(frozen=True)
class Caller:
    """A proven box at an address of its own, which insists on a 200, and counts what it is told."""

    port: int
    box: Box
    source: str
    told: Counter[int] = field(default_factory=Counter, compare=False)

    async def register(self) -> str:
        """The bootstrap secret's way; the token."""
        body = {"id": self.box.workspace_id, "url": ""}
        answer = await self._call("/registry/register", body, secret=self.box.secret)
        return str(answer.body["auth_token"])

    async def register_again(self, token: str) -> None:
        await self._call("/registry/register", {"id": self.box.workspace_id, "url": ""}, bearer=token)

    async def beat(self, token: str) -> None:
        body = {"workspace_id": self.box.workspace_id, "active_tasks": 0}
        await self._call("/registry/heartbeat", body, bearer=token)

    async def live(self, token: str | None) -> None:
        """What a box does in minutes, but at once."""
        token = token or await self.register()
        for _ in range(BEATS):
            await self.beat(token)
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
            self.told[answer.status] += 1
            if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
                assert answer.status == HTTPStatus.OK, (path, answer)
                return answer


@asynccontextmanager
async def flood(port: int, workspace_id: str) -> AsyncIterator[Counter[int]]:
    """Strangers that know the name of a workspace; how often they were told what."""
    told: Counter[int] = Counter()

    async def stranger() -> None:
        while True:
            # One body is enough for both: each call ignores the member that names the workspace to the other.
            body = {"id": workspace_id, "workspace_id": workspace_id, "url": "http://203.0.113.1:80"}
            path = random.choice(["/registry/register", "/registry/heartbeat"])
            bearer = random.choice([None, "x", secrets.token_urlsafe(32)])
            answer = await call(port, path, body, source="127.0.0.1", bearer=bearer, seconds=PATIENCE_SECONDS)
            told[answer.status] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.TaskGroup() as group:
        strangers = [group.create_task(stranger()) for _ in range(STRANGERS)]
        try:
            yield told
        finally:
            for task in strangers:
                task.cancel()


async def test_a_flood_of_strangers_does_not_starve_proven_boxes(database: str, platform: Platform) -> None:
    boxes = [await platform.workspace() for _ in range(PROVEN)]
    crowded = (await platform.workspace("ws-crowded")).workspace_id
    async with Proxy(database, slow=(crowded.encode(), SLOW_SECONDS)).running() as proxy:
        with api_process(proxy.url, pool_size=POOL_SIZE, pool_minimum=POOL_SIZE) as process:
            callers = [Caller(process.port, box, f"127.0.0.{10 + n}") for n, box in enumerate(boxes)]
            known: dict[Caller, str] = {}
            for caller in callers[: PROVEN // 2]:
                known[caller] = await caller.register()
                await caller.beat(known[caller])

            async def connections() -> int:
                cursor = await platform.database.execute(
                    "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'onebox-api'"
                )
                [row] = await cursor.fetchall()
                return int(row["n"])

            # All are there before the flood: nobody has to wait until one more is opened.
            await eventually(connections, lambda count: count == POOL_SIZE, seconds=PATIENCE_SECONDS)
            turns = asyncio.Semaphore(AT_ONCE)

            async def live(caller: Caller) -> None:
                async with turns:
                    await caller.live(known.get(caller))

            async with flood(process.port, crowded) as told:

                async def refused() -> int:
                    return told[503]

                async def served() -> int:
                    return told[401]

                # The rest of them wait for a place, or have one.
                await eventually(
                    refused,
                    lambda count: count >= STRANGERS - UNKNOWN_QUEUE_LIMIT - POOL_SIZE,
                    seconds=PATIENCE_SECONDS,
                )
                await asyncio.gather(*map(live, callers))
                # Some of the strangers get their turn, too; the boxes may be done before the first of them.
                await eventually(served, bool, seconds=PATIENCE_SECONDS)
    # On a busy machine one or another stranger gets no answer in time; none gets any other.
    assert told.keys() - {0} == {401, 503}
    proven = sum((caller.told for caller in callers), Counter[int]())
    # On a busy machine one or another waits too long; behind the flood, nearly all of them would.
    assert proven[503] <= proven[200] // 10, proven
