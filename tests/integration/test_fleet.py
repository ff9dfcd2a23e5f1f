"""A fleet of a hundred: boxes that are silent because of an outage are kept; dead ones are recreated.

It uses its own stack, whose boxes belong to the test.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx2
import pytest

from devstack.console import Console, connected, eventually
from devstack.stack import Stack
from tests.integration.fleet import Fleet, boxless, inhabited
from tests.integration.wire import Wire
from workflows.fleet.contract import WatchdogReport
from workflows.shared.names import WATCHDOG_TYPE
from workflows.workspace.enums import ConditionType, Phase
from workflows.workspace.messages import RequestOutcome
from workflows.workspace.requests import OutcomeKind

pytestmark = [pytest.mark.anyio, pytest.mark.storm, pytest.mark.timeout(900)]

NUMBER, SILENT, DYING = 100, 40, 5
AT_ONCE = 2

SETTINGS = {
    "CANARY": "off",
    "EC2_MUTATIONS_PER_SECOND": "100",
    "HEARTBEAT_STALE_SECONDS": "10",
    "STALE_RECREATE_SECONDS": "20",  # twice the staleness limit, as in production
    "WATCHDOG_INTERVAL_SECONDS": "1",
    "FLEET_MAX_CONCURRENT_RECREATES": str(AT_ONCE),
    "REGISTER_DEADLINE_SECONDS": "300",
}
NAMES = [f"box-{number:03}" for number in range(NUMBER)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """With the fleet's default limits, and without box processes."""
    with boxless(SETTINGS) as stack:
        yield stack


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Its own; the shared one leads to the shared stack."""
    with Wire() as wire:
        yield wire


class Watch:
    """The fleet status as an operator sees it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    async def round(self) -> WatchdogReport:
        """The result of the newest completed watchdog round."""

        async def newest() -> WatchdogReport | None:
            query = f"WorkflowType = '{WATCHDOG_TYPE}' AND ExecutionStatus = 'Completed'"
            async for found in self._console.client.list_workflows(query, limit=1):
                handle = self._console.client.get_workflow_handle(
                    found.id, run_id=found.run_id, result_type=WatchdogReport
                )
                watched: WatchdogReport = await handle.result()
                return watched
            return None

        seen = await eventually(newest, lambda it: it is not None)
        assert seen is not None
        return seen

    async def stale(self) -> int:
        [row] = await self._console.rows("SELECT count(*) AS n FROM heartbeats WHERE stale_since IS NOT NULL")
        return int(str(row["n"]))

    async def overdue(self) -> int:
        """Wait until boxes are silent long enough to be replaced, and some watchdog rounds longer."""
        [row] = await self._console.rows(
            "SELECT count(*) AS n FROM heartbeats WHERE stale_since IS NOT NULL"
            " AND last_heartbeat_at < now() - interval '26 seconds'"
        )
        return int(str(row["n"]))

    async def online(self) -> int:
        [row] = await self._console.rows("SELECT count(*) AS n FROM workspaces WHERE phase = 'online'")
        return int(str(row["n"]))

    async def recreating(self) -> int:
        [row] = await self._console.rows(
            "SELECT count(*) AS n FROM workspaces WHERE generation > 1"
            " AND phase IN ('recreating', 'awaiting_registration')"
        )
        return int(str(row["n"]))


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Freeze a process for the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def populated(stack: Stack, console: Console, wire: Wire) -> AsyncIterator[Fleet]:
    """A hundred workspaces online; forty of them reach the register API through the wire."""
    wire.upstream = stack.register_api_url
    async with (
        httpx2.AsyncClient(base_url=wire.url, timeout=10, trust_env=False) as other_way,
        inhabited(console.aws, stack.register_api_url) as fleet,
    ):
        fleet.beat_seconds = 2.0
        fleet.apart, fleet.other_way = frozenset(NAMES[:SILENT]), other_way
        for name in NAMES:
            await console.start(name)
        await eventually(Watch(console).online, lambda number: number == NUMBER, seconds=300)
        yield fleet


async def test_forty_unreachable_boxes_are_kept_and_five_dead_ones_are_replaced(
    stack: Stack, wire: Wire
) -> None:
    async with (
        connected(stack) as console,
        populated(stack, console, wire),
    ):
        watch = Watch(console)
        await eventually(watch.round, lambda seen: seen.running == NUMBER and seen.frozen is None)

        wire.upstream = ""  # the heartbeats of forty boxes get lost
        await eventually(watch.overdue, lambda number: number == SILENT, seconds=120)
        # Others may miss a few heartbeats too while the machine stalls.
        why = f"{SILENT} of {NUMBER} workspaces are stale"
        await eventually(watch.round, lambda seen: seen.frozen is not None and why in seen.frozen)

        async def deferred() -> RequestOutcome:
            outcome = await console.ask(NAMES[0], requested_by="auto-recovery", observed_generation=1)
            assert outcome.outcome is OutcomeKind.DEFERRED
            assert outcome.retry_at is not None
            return outcome

        await eventually(deferred, lambda outcome: why in outcome.detail)
        status = await console.status(NAMES[0])
        [allowed] = [it for it in status.conditions if it.type is ConditionType.RECREATE_ALLOWED]
        assert (allowed.reason, status.phase) == ("FleetFrozen", Phase.DEGRADED)
        assert console.aws.counts().launches == NUMBER, "nobody was recreated"

        wire.upstream = stack.register_api_url
        await eventually(watch.stale, lambda number: number == 0, seconds=120)
        await eventually(watch.round, lambda seen: seen.frozen is None, seconds=60)

        with stopped(stack.pids["api"]):  # no heartbeat is accepted for longer than the staleness limit
            await eventually(watch.overdue, lambda number: number == NUMBER, seconds=120)
            assert (await watch.round()).frozen is not None
        await eventually(watch.stale, lambda number: number == 0, seconds=120)
        await eventually(watch.round, lambda seen: seen.frozen is None, seconds=60)
        await eventually(watch.online, lambda number: number == NUMBER, seconds=120)
        assert console.aws.counts().launches == NUMBER, "nobody was recreated"

        for view in console.aws.instances():
            if view.workspace in NAMES[-DYING:]:
                await asyncio.to_thread(console.aws.shutdown, view.instance_id)
        most = 0

        async def replaced() -> int:
            nonlocal most
            most = max(most, await watch.recreating())
            return console.aws.counts().launches - NUMBER if await watch.online() == NUMBER else 0

        await eventually(replaced, lambda number: number >= DYING, seconds=240)
        assert 1 <= most <= AT_ONCE
        generations = await console.rows("SELECT workspace_id, generation FROM workspaces ORDER BY 1")
        assert [row["generation"] for row in generations] == [1] * (NUMBER - DYING) + [2] * DYING
        assert console.aws.counts().launches == NUMBER + DYING
        asked = await console.rows("SELECT DISTINCT requested_by FROM requests WHERE outcome = 'accepted'")
        assert asked == [{"requested_by": "watchdog"}]
