"""A thousand delegations while boxes, worker and API are killed: none is lost, none is done twice."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from temporalio.client import RPCError

from devstack.console import POLL_SECONDS, ConditionNotMet, Console, eventually
from devstack.stack import Stack
from workflows.workspace.enums import CanaryPolicy, Phase
from workflows.workspace.messages import WorkspaceSpec

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(1500)]

SEED = 2611
WORKSPACES = 20
DELEGATIONS = 1000
CALLERS = 10
KILLS = 25
SETTLED_WITHIN = 900.0
TERMINAL = ("processed", "failed", "expired", "canceled")
REPLACED = "target_replaced"


class Storm:
    """Seeded; records which delegation each caller was promised."""

    def __init__(self, stack: Stack, console: Console, workspaces: list[str]) -> None:
        self.stack, self.console, self.workspaces = stack, console, workspaces
        self.random = random.Random(SEED)
        self.promised: dict[str, str] = {}
        self.kills = Counter[str]()
        self.ended: dict[str, tuple[object, ...]] = {}
        self._numbers = iter(range(DELEGATIONS))
        self._calm = False

    async def blow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._watch())
            kills = tasks.create_task(self._kill())
            await asyncio.gather(*(self._call() for _ in range(CALLERS)))
            await kills
            await self._settle()
            self._calm = True
            await watching

    async def _call(self) -> None:
        """Delegate work until it is accepted; a caller without a response retries with the same key."""
        for number in self._numbers:
            source, target = self.random.sample(self.workspaces, 2)
            body = {
                "target_id": target,
                "task": f"part {number} of the whole – größer als 1 €",
                "idempotency_key": f"key-{number}",
                "idempotent": True,
            }
            while True:
                try:
                    answer = await self.console.http.post(f"/workspaces/{source}/delegate", json=body)
                except httpx2.HTTPError:
                    await asyncio.sleep(
                        POLL_SECONDS
                    )  # back off like any caller: the API needs the machine to recover
                    continue
                if answer.status_code == 202:
                    break
                assert answer.status_code in (502, 503), answer.text
            self.promised[f"key-{number}"] = answer.json()["delegation_id"]

    async def _kill(self) -> None:
        while self.kills.total() < KILLS:
            await asyncio.sleep(self.random.uniform(0.5, 1.5))
            what = self.random.choice(["box", "box", "box", "worker", "api", "recreate"])
            match what:
                case "box":
                    if not (boxes := self.stack.boxes):
                        continue
                    try:
                        os.kill(self.random.choice(boxes).pid, signal.SIGKILL)
                    except ProcessLookupError:
                        continue
                case "recreate":
                    await self._replace(self.random.choice(self.workspaces))
                case name:
                    if (pid := self.stack.pids.get(name)) is None:
                        continue
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:  # it has just ended
                        continue
            self.kills[what] += 1

    async def _replace(self, workspace: str) -> None:
        try:
            await self.console.signal(workspace, requested_by="admin:alice", force=True)
        except RPCError:
            return

    async def _watch(self) -> None:
        """Terminal states never change."""
        while not self._calm:
            for row in await self._rows():
                if row[1] in TERMINAL:
                    assert self.ended.setdefault(str(row[0]), row) == row, "I10: an end has changed"
            await asyncio.sleep(0.5)

    async def _settle(self) -> None:
        for name in ("worker", "api"):
            await asyncio.to_thread(self.stack.wait_ready, name)

        async def open_ones() -> Counter[str]:
            return Counter(str(row[1]) for row in await self._rows() if row[1] not in TERMINAL)

        await eventually(open_ones, lambda seen: not seen, seconds=SETTLED_WITHIN)

    async def _rows(self) -> list[tuple[object, ...]]:
        rows = await self.console.rows(
            "SELECT delegation_id, state, error_code, error, ended_at FROM delegations"
            " WHERE type = 'delegate' AND source_id = ANY(%s)",
            self.workspaces,
        )
        return [tuple(row.values()) for row in rows]


async def test_each_of_a_thousand_delegations_ends_once_whatever_is_killed(
    stack: Stack, console: Console, ledgers: Path
) -> None:
    workspaces = [f"parts-{number}" for number in range(WORKSPACES)]
    for workspace in workspaces:
        await console.start(workspace, WorkspaceSpec(canary=CanaryPolicy.OFF))
    for workspace in workspaces:
        await console.until_phase(workspace, Phase.ONLINE, seconds=120)
    for workspace in workspaces[:3]:
        await console.set_box_mode(workspace, "slow")
    storm = Storm(stack, console, workspaces)
    began = time.monotonic()
    try:
        await storm.blow()
    except* ConditionNotMet as still:
        raise AssertionError(await whereabouts(console, workspaces)) from still
    print(f"settled after {time.monotonic() - began:.0f} s; kills: {dict(storm.kills)}")  # noqa: T201

    assert len(set(storm.promised.values())) == DELEGATIONS, "a key means one delegation"
    rows = await storm._rows()
    assert {str(row[0]) for row in rows} == set(storm.promised.values()), "none is lost, none is made up"
    states = Counter(str(row[1]) for row in rows)
    assert states == {"processed": DELEGATIONS}, states
    done = [line for each in workspaces for line in (ledgers / each).read_text().splitlines()]
    assert Counter(done) == Counter(storm.promised.values()), "each is done once"


async def whereabouts(console: Console, workspaces: list[str]) -> str:
    """The open delegations, for a failed test's report."""
    rows = await console.rows(
        "SELECT d.target_id, d.state, d.dead_lettered, d.stalled, d.attempts, d.connect_failures,"
        " count(*) AS n, w.phase,"
        " max(d.target_generation) AS sent_to, w.generation"
        " FROM delegations d JOIN workspaces w ON w.workspace_id = d.target_id"
        " WHERE d.ended_at IS NULL AND d.source_id = ANY(%s)"
        " GROUP BY d.target_id, d.state, d.dead_lettered, d.stalled, d.attempts, d.connect_failures,"
        " w.phase, w.generation",
        workspaces,
    )
    waiting = await console.rows("SELECT count(*) AS waiting FROM delegation_outbox")
    return "\n".join(map(str, [*waiting, *rows]))
