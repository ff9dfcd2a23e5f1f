"""One generation until online: its time compared with a script without durability, and its cost."""

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import cast

import psycopg

from bench.load.boxes import simulated_boxes
from bench.parts import events, statements
from bench.parts.fixtures import seed_workspaces
from bench.parts.results import Result
from bench.parts.size import Size
from bench.report.generation_cost import Cost, Measured, result_of
from devstack.console import POLL_SECONDS, TIMEOUT_SECONDS, ConditionNotMet, Console, connected
from devstack.stack import PARTS, Stack

SETTINGS = {
    # No other activity, so that all counts belong to the generation.
    "WATCHDOG_INTERVAL_SECONDS": "3600",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "86400",
    "REPAIR_INTERVAL_SECONDS": "86400",
    # Limits that protect AWS and people.
    "EC2_MUTATIONS_PER_SECOND": "1000",
    "FLEET_MAX_CONCURRENT_PERCENT": "100",
    "LOG_FORMAT": "json",
}


def run(size: Size) -> Result:
    """Run the benchmark."""
    with Stack(
        free_ports=True,
        fsync=True,
        parts=[part for part in PARTS if part != "boxes"],
        settings=SETTINGS,
        pending_seconds=0,
        terminating_seconds=0,
    ) as stack:
        return result_of(asyncio.run(_measured(size, stack)))


async def _measured(size: Size, stack: Stack) -> Measured:
    it = Measured()
    async with connected(stack) as console, simulated_boxes(stack), _script(stack) as script:
        bench = _Bench(console, script)
        await bench.ours("warm-up")
        await bench.theirs("warm-up-straight")
        for number in range(size.rounds * size.generations):
            name = f"ours-{number}"
            it.new.append((await bench.ours(name), await bench.theirs(f"straight-{number}")))
            it.recreate.append(
                (
                    await bench.ours(name, recreate=True),
                    await bench.theirs(f"straight-{number}", recreate=True),
                )
            )
        await bench.ours("counted")
        it.new_cost = await bench.cost("counted")
        began = time.time()
        with statements.logged(stack.database_url, stack.state_dir / "postgres" / "postgres.log") as logged:
            await bench.ours("counted", recreate=True)
        it.recreate_cost = (await bench.cost("counted")).since(it.new_cost)
        it.waits = await bench.waits("counted", since=began)
        sent = [each for each in logged.about("counted") if each[0].startswith("onebox")]
        it.sent = Counter(sender for sender, _ in sent)
        it.repeated = statements.repeated(sent)
        planted = 0
        for fleet in size.fleets:
            seed_workspaces(
                stack.database_url,
                server_keys=stack.environment["SERVER_KEYS"],
                names=[f"ws-{number}" for number in range(planted, fleet)],
            )
            planted = fleet
            times = [await bench.ours(f"among-{fleet}-{number}") for number in range(size.generations)]
            it.growth.append((fleet, median(times)))
    return it


@asynccontextmanager
async def _script(stack: Stack) -> AsyncIterator[Process]:
    """Start the straight-line script, which waits for commands."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.baselines.script"), stdin=PIPE, stdout=PIPE, env=stack.environment
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


class _Bench:
    """Run generations of both sides."""

    def __init__(self, console: Console, script: Process) -> None:
        self._console = console
        self._script = script

    async def ours(self, workspace_id: str, *, recreate: bool = False) -> float:
        """Return the seconds from the request until the generation is recorded as online."""
        began = time.time()
        if recreate:
            await self._console.signal(workspace_id, requested_by="watchdog", observed_generation=1)
        else:
            await self._console.start(workspace_id)
        return await self._online(workspace_id, 2 if recreate else 1) - began

    async def theirs(self, workspace_id: str, *, recreate: bool = False) -> float:
        """The same for the script."""
        stdin = cast("asyncio.StreamWriter", self._script.stdin)
        stdin.write(f"{'recreate' if recreate else 'new'} {workspace_id}\n".encode())
        await stdin.drain()
        return float(await cast("asyncio.StreamReader", self._script.stdout).readline())

    async def cost(self, workspace_id: str) -> Cost:
        """Return the workspace's cost so far, once its canary is answered and everything is recorded."""
        history = await self._console.workflow(workspace_id).fetch_history()
        return Cost(
            kinds=events.kinds_of(history.events),
            actions=events.actions_of(history.events),
            calls=Counter(self._console.aws.calls(workspace_id)),
        )

    async def waits(self, workspace_id: str, *, since: float) -> list[tuple[str, float]]:
        """Return the workflow's time: running activities, its own tasks, and waiting for either."""
        history = await self._console.workflow(workspace_id).fetch_history()
        return events.spent(history.events, since=since)

    async def _online(self, workspace_id: str, generation: int) -> float:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        connection = await psycopg.AsyncConnection.connect(self._console.database_url, autocommit=True)
        async with connection:
            while time.monotonic() < deadline:
                cursor = await connection.execute(
                    "SELECT extract(epoch FROM online_at)::float8 FROM generations"
                    " WHERE workspace_id = %s AND generation = %s AND last_processed_at IS NOT NULL",
                    [workspace_id, generation],
                )
                row = await cursor.fetchone()
                if row is not None and row[0] is not None:
                    await self._rested(workspace_id)
                    return float(row[0])
                await asyncio.sleep(POLL_SECONDS / 10)
        raise ConditionNotMet(f"{workspace_id} is not online after {TIMEOUT_SECONDS:g} s")

    async def _rested(self, workspace_id: str) -> None:
        """Wait until the workflow is idle."""
        before = -1
        while (now := await self._length(workspace_id)) != before:
            before = now
            await asyncio.sleep(POLL_SECONDS * 5)

    async def _length(self, workspace_id: str) -> int:
        return (await self._console.workflow(workspace_id).describe()).history_length
