"""2,000 boxes that come back at once, when their control plane was away for ten minutes.

On a real process, from 2,000 addresses, each call on a connection of its own. `pytest -rP` shows the figures.
"""

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import LiteralString

import psycopg
import pytest

from activities.user_data.onebox_box import SLOW_SECONDS, backoff, jittered
from devstack.console import eventually
from store.db.pool import Connection
from store.registration import heartbeats
from store.registration.credentials import token_hash, token_prefix
from tests.register_api.calling import Answer, call
from tests.register_api.platform import KEYS
from tests.register_api.serving import api_process

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(600)]

BOXES = 2_000
POOL_SIZE = 16
"""As in production."""

BEAT_SECONDS = 15.0
"""Half of the real one: twice the load, in half the time."""

AWAY = timedelta(minutes=10)
SILENT = timedelta(seconds=180)

INTERVALS = 4
"""Of beats, until one is quiet: if the machine stands still for two seconds, who came meanwhile is told to
come again. A crowd that keeps itself alive has no quiet one."""

PATIENCE = 300.0
"""A minute is enough on two free cores, as the printed figures say; a slow machine may take its time."""


@dataclass(frozen=True)
class Told:
    """One answer."""

    at: float
    path: str
    status: int


@dataclass
class Fleet:
    """The boxes, where they call, and what they were told."""

    port: int
    told: list[Told] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def since(self, moment: float) -> Counter[int]:
        return Counter(told.status for told in self.told if told.at >= moment)

    async def answered(self) -> int:
        return len(self.told)

    def figures(self) -> str:
        """For each second: how many calls were answered how."""
        lines = []
        for second, group in groupby(self.told, key=lambda told: int(told.at - self.began)):
            counts = sorted(Counter((told.path, told.status) for told in group).items())
            parts = (f"{path} {status}: {count}" for (path, status), count in counts)
            lines.append(f"{second:>4} s  " + "  ".join(parts) + "\n")
        return "".join(lines)


@dataclass
class LoadBox:
    """A box with an address of its own: the bootstrap script's register, then a runtime's beats."""

    number: int
    token: str | None
    tries: int = 0

    @property
    def workspace_id(self) -> str:
        return f"ws-{self.number}"

    async def live(self, fleet: Fleet, *, at_once: bool) -> None:
        """For ever. Boxes were started at different times, so their beats are spread over the interval."""
        if not at_once:
            await asyncio.sleep(random.uniform(0, BEAT_SECONDS))
        if self.token is None:
            self.token = await self._register(fleet)
        await self._beat(fleet)
        if at_once:
            await asyncio.sleep(random.uniform(0, BEAT_SECONDS))
        while True:
            await self._beat(fleet)
            await asyncio.sleep(BEAT_SECONDS)

    async def _register(self, fleet: Fleet) -> str:
        """As the bootstrap script does it."""
        secret = KEYS.bootstrap_secret(self.workspace_id, 1, key_id="k1")
        body = {"id": self.workspace_id, "url": ""}
        while True:
            answer = await self._call(fleet, "register", body, bearer=secret, secret=secret)
            self.tries += 1
            if answer.status == 200:
                return str(answer.body["auth_token"])
            wait = backoff(self.tries - 1)
            if answer.retry_after.isdigit():
                wait = max(wait, jittered(min(int(answer.retry_after), SLOW_SECONDS)))
            await asyncio.sleep(wait)

    async def _beat(self, fleet: Fleet) -> None:
        """As a runtime does it: whatever the answer is, the next beat comes when it is time."""
        body = {"workspace_id": self.workspace_id, "active_tasks": 0}
        await self._call(fleet, "heartbeat", body, bearer=self.token)

    async def _call(
        self,
        fleet: Fleet,
        path: str,
        body: Mapping[str, object],
        *,
        bearer: str | None,
        secret: str | None = None,
    ) -> Answer:
        source = f"127.{1 + self.number // 250}.0.{1 + self.number % 250}"
        answer = await call(
            fleet.port, f"/registry/{path}", body, source=source, bearer=bearer, secret=secret
        )
        fleet.told.append(Told(time.monotonic(), path, answer.status))
        return answer


@asynccontextmanager
async def living(fleet: Fleet, boxes: Sequence[LoadBox], *, at_once: bool) -> AsyncIterator[None]:
    """All boxes live for the block."""
    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(box.live(fleet, at_once=at_once)) for box in boxes]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()


@dataclass
class Record:
    """What the database says, seen from behind."""

    conn: Connection
    most_connections: int = 0

    async def make(self, tokens: Sequence[str]) -> None:
        """A workspace for each, with one open generation, an active token, and a box that beat just now."""
        ids = [f"ws-{number}" for number in range(len(tokens))]
        for statement in _WORKSPACES:
            await self.conn.execute(statement, [ids])
        hashes, prefixes = [token_hash(token) for token in tokens], [token_prefix(token) for token in tokens]
        await self.conn.execute(
            "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id)"
            " SELECT id, 1, 'active', sha256, prefix, 'k1'"
            " FROM unnest(%s::text[], %s::bytea[], %s::text[]) AS made (id, sha256, prefix)",
            [ids, hashes, prefixes],
        )

    async def pass_by(self, duration: timedelta) -> None:
        """Let time pass without any beat; it is noticed, as the worker does it."""
        await self.conn.execute(
            "UPDATE tokens SET last_used_at = last_used_at - %s, created_at = created_at - %s",
            [duration, duration],
        )
        await self.conn.execute(
            "UPDATE heartbeats SET last_heartbeat_at = last_heartbeat_at - %s", [duration]
        )
        assert await heartbeats.mark_stale(self.conn, older_than=SILENT, limit=BOXES) == BOXES

    async def online(self) -> int:
        """How many boxes count as alive; takes a look at the API's connections on the way."""
        self.most_connections = max(self.most_connections, await self.connections())
        return await self._count(
            """
            SELECT count(*) FROM heartbeats
            JOIN generations USING (workspace_id, generation)
            WHERE superseded_at IS NULL AND stale_since IS NULL AND last_heartbeat_at > now() - %s
              AND EXISTS (SELECT FROM tokens WHERE tokens.workspace_id = heartbeats.workspace_id
                          AND tokens.generation = heartbeats.generation AND tokens.state = 'active')
            """,
            timedelta(seconds=2 * BEAT_SECONDS),
        )

    async def connections(self) -> int:
        """Of the API."""
        return await self._count(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = %s",
            "onebox-api",
        )

    async def _count(self, query: LiteralString, value: object) -> int:
        row = await (await self.conn.execute(query, [value])).fetchone()
        assert row is not None
        return int(row[0])


_WORKSPACES: tuple[LiteralString, ...] = (
    "INSERT INTO workspaces (workspace_id, generation) SELECT unnest(%s::text[]), 1",
    "INSERT INTO generations (workspace_id, generation, key_id, spec)"
    " SELECT unnest(%s::text[]), 1, 'k1', '{}'",
    "INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at, alive_since)"
    " SELECT unnest(%s::text[]), 1, now(), now()",
)


async def test_two_thousand_boxes_that_come_back_at_once_are_all_online_again(database: str) -> None:
    tokens = [KEYS.token(f"ws-{number}", 1, nonce=bytes(32), key_id="k1") for number in range(BOXES)]
    boxes = [LoadBox(number, token) for number, token in enumerate(tokens)]
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        record = Record(conn)
        await record.make(tokens)
        with api_process(database, pool_size=POOL_SIZE) as process:
            before = Fleet(process.port)
            async with living(before, boxes, at_once=False):
                await eventually(before.answered, lambda count: count >= BOXES // 4, seconds=PATIENCE)
                process.kill()
            await eventually(record.connections, lambda count: count == 0, seconds=60)
            await record.pass_by(AWAY)
            assert await record.online() == 0
            for box in boxes[::2]:
                box.token = None
            process.start()

            fleet = Fleet(process.port)
            async with living(fleet, boxes, at_once=True):
                await eventually(record.online, lambda count: count == BOXES, seconds=PATIENCE)
                seconds = time.monotonic() - fleet.began
                quiet = False
                for _ in range(INTERVALS):
                    settled = time.monotonic()
                    await asyncio.sleep(BEAT_SECONDS)  # in which each of them beats once more
                    quiet = await record.online() == BOXES and fleet.since(settled).keys() == {200}
                    if quiet:
                        break

    sys.stdout.write(f"all online after {seconds:.1f} s\n{fleet.figures()}")
    sys.stdout.write(f"tries to register: {sorted(Counter(box.tries for box in boxes).items())}\n")
    # An answer that came later than a script waits for it is lost: on a slow machine some are.
    assert fleet.since(fleet.began).keys() - {0} == {200, 503}
    assert quiet, "once all are online, nobody is told to come again"
    assert 0 < record.most_connections <= POOL_SIZE
