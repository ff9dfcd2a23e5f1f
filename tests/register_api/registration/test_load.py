"""2,000 boxes recover at the same time after an outage of ten minutes.

They call a real process from 2,000 addresses, each call on its own connection. `pytest -rP` shows the counts.
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

from activities.user_data.box_base import backoff, jittered
from activities.user_data.onebox_box import SLOW_SECONDS
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

HEARTBEAT_SECONDS = 15.0
"""Half of the real interval: twice the load in half the time."""

AWAY = timedelta(minutes=10)
SILENT = timedelta(seconds=180)

INTERVALS = 4
"""Heartbeat intervals until one has no refusals. If the machine pauses for two seconds, queued calls are
refused. A retry storm that sustains itself never has one."""

PATIENCE = 300.0
"""Two idle cores need a minute."""


@dataclass(frozen=True)
class Answered:
    """One response."""

    at: float
    path: str
    status: int


@dataclass
class Fleet:
    """The boxes' target, and their responses."""

    port: int
    responses: list[Answered] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def since(self, moment: float) -> Counter[int]:
        return Counter(answered.status for answered in self.responses if answered.at >= moment)

    async def answered(self) -> int:
        return len(self.responses)

    def figures(self) -> str:
        """Counts of responses for each second."""
        lines = []
        for second, group in groupby(self.responses, key=lambda answered: int(answered.at - self.began)):
            counts = sorted(Counter((answered.path, answered.status) for answered in group).items())
            parts = (f"{path} {status}: {count}" for (path, status), count in counts)
            lines.append(f"{second:>4} s  " + "  ".join(parts) + "\n")
        return "".join(lines)


@dataclass
class LoadBox:
    """A box with its own address: the bootstrap script's register call, then heartbeats."""

    number: int
    token: str | None
    tries: int = 0

    @property
    def workspace_id(self) -> str:
        return f"ws-{self.number}"

    async def live(self, fleet: Fleet, *, at_once: bool) -> None:
        """Run forever. Boxes started at different times, so their heartbeats are spread over the interval."""
        if not at_once:
            await asyncio.sleep(random.uniform(0, HEARTBEAT_SECONDS))
        if self.token is None:
            self.token = await self._register(fleet)
        await self._heartbeat(fleet)
        if at_once:
            await asyncio.sleep(random.uniform(0, HEARTBEAT_SECONDS))
        while True:
            await self._heartbeat(fleet)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _register(self, fleet: Fleet) -> str:
        """Register as the bootstrap script does."""
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

    async def _heartbeat(self, fleet: Fleet) -> None:
        """Send a heartbeat as a runtime does: the interval does not depend on the response."""
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
        fleet.responses.append(Answered(time.monotonic(), path, answer.status))
        return answer


@asynccontextmanager
async def living(fleet: Fleet, boxes: Sequence[LoadBox], *, at_once: bool) -> AsyncIterator[None]:
    """Run all boxes for the block."""
    async with asyncio.TaskGroup() as group:
        lives = [group.create_task(box.live(fleet, at_once=at_once)) for box in boxes]
        try:
            yield
        finally:
            for life in lives:
                life.cancel()


@dataclass
class Record:
    """Direct access to the database."""

    conn: Connection
    most_connections: int = 0

    async def make(self, tokens: Sequence[str]) -> None:
        """Create a workspace for each token, with an open generation and a recent heartbeat."""
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
        """Let time pass without heartbeats, and mark the boxes stale as the worker does."""
        await self.conn.execute(
            "UPDATE tokens SET last_used_at = last_used_at - %s, created_at = created_at - %s",
            [duration, duration],
        )
        await self.conn.execute(
            "UPDATE heartbeats SET last_heartbeat_at = last_heartbeat_at - %s", [duration]
        )
        assert await heartbeats.mark_stale(self.conn, older_than=SILENT, limit=BOXES) == BOXES

    async def online(self) -> int:
        """The number of online boxes; also samples the API's connections."""
        self.most_connections = max(self.most_connections, await self.connections())
        return await self._count(
            """
            SELECT count(*) FROM heartbeats
            JOIN generations USING (workspace_id, generation)
            WHERE superseded_at IS NULL AND stale_since IS NULL AND last_heartbeat_at > now() - %s
              AND EXISTS (SELECT FROM tokens WHERE tokens.workspace_id = heartbeats.workspace_id
                          AND tokens.generation = heartbeats.generation AND tokens.state = 'active')
            """,
            timedelta(seconds=2 * HEARTBEAT_SECONDS),
        )

    async def connections(self) -> int:
        """The number of the API's connections."""
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
                    await asyncio.sleep(HEARTBEAT_SECONDS)  # each box sends one heartbeat in this time
                    quiet = await record.online() == BOXES and fleet.since(settled).keys() == {200}
                    if quiet:
                        break

    sys.stdout.write(f"all online after {seconds:.1f} s\n{fleet.figures()}")
    sys.stdout.write(f"tries to register: {sorted(Counter(box.tries for box in boxes).items())}\n")
    # The script does not wait for late responses: on a slow machine some are lost.
    assert fleet.since(fleet.began).keys() - {0} == {200, 503}
    assert quiet, "once all are online, no call is refused"
    assert 0 < record.most_connections <= POOL_SIZE
