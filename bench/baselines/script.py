"""One generation by a straight-line script: the product's own AWS and SQL calls, without durability.

`python -m bench.baselines.script` reads one command per line (`new NAME`, `recreate NAME`) and answers each
with its duration in seconds. Killed midway, it leaves its work unfinished.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar, cast

from temporalio.testing import ActivityEnvironment

from store.db.pool import connection
from workers import wiring
from workers.settings.common import load
from workers.settings.worker import WorkerSettings
from workers.telemetry import logs
from workers.wiring import Resources
from workflows.fleet import contract as fleet_contract
from workflows.workspace import contract
from workflows.workspace.enums import Phase
from workflows.workspace.messages import WorkspaceSpec

LOOK_SECONDS = 0.005

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


class Script:
    """The steps in sequence."""

    def __init__(self, parts: Resources) -> None:
        self._pool = parts.pool
        self._activities = {each.__name__: each for listed in parts.activities.values() for each in listed}
        self._environment = ActivityEnvironment()
        self._revisions: dict[str, int] = {}

    async def new(self, workspace_id: str) -> None:
        """Bring a new workspace online."""
        enroll = contract.Enroll(workspace_id=workspace_id, spec=WorkspaceSpec())
        await self._do(contract.enroll, enroll)
        await self._provide(workspace_id, after=0)

    async def recreate(self, workspace_id: str) -> None:
        """Replace its box and bring it online again."""
        consult = fleet_contract.RequestFleetPermit(workspace_id=workspace_id, generation=2)
        await self._do(fleet_contract.request_fleet_permit, consult)
        await self._provide(workspace_id, after=1)

    async def _provide(self, workspace_id: str, *, after: int) -> None:
        generation = after + 1
        phase = Phase.RECREATING if after else Phase.PROVISIONING
        await self._record(workspace_id, generation=after, phase=phase)
        opening = contract.OpenGeneration(workspace_id=workspace_id, after=after)
        await self._do(contract.open_generation, opening)
        fence = contract.FenceInstances(
            workspace_id=workspace_id,
            generation=generation,
            keep_attempt=1,
            declared_dead=(),
            proven_gone=(),
        )
        while True:
            if not (await self._do(contract.fence_instances, fence)).alive:
                break
        launch = contract.Launch(workspace_id=workspace_id, generation=generation, attempt=1)
        launched = await self._do(contract.launch, launch)
        address = contract.Address(
            workspace_id=workspace_id,
            generation=generation,
            attempt=1,
            instance_id=launched.instance_id or "",
        )
        await self._do(contract.address, address)
        await self._until_beating(workspace_id, generation)
        await self._record(workspace_id, generation=generation, phase=Phase.AWAITING_REGISTRATION)
        canary = contract.AskCanary(workspace_id=workspace_id, generation=generation, attempt=1)
        await self._do(contract.ask_canary, canary)
        await self._record(workspace_id, generation=generation, phase=Phase.ONLINE)

    async def _do(self, activity: Callable[[_Request], Awaitable[_Result]], request: _Request) -> _Result:
        """Run an activity as a worker would."""
        implementation = cast("Callable[[_Request], Awaitable[_Result]]", self._activities[activity.__name__])
        return await self._environment.run(implementation, request)

    async def _record(self, workspace_id: str, *, generation: int, phase: Phase) -> None:
        revision = self._revisions[workspace_id] = self._revisions.get(workspace_id, 0) + 1
        status = contract.RecordStatus(
            workspace_id=workspace_id,
            generation=generation,
            revision=revision,
            phase=phase,
            last_error=None,
            conditions=(),
            requests=(),
        )
        await self._do(contract.record_status, status)

    async def _until_beating(self, workspace_id: str, generation: int) -> None:
        while True:
            async with connection(self._pool) as conn:
                cursor = await conn.execute(
                    "SELECT last_heartbeat_at FROM heartbeats WHERE (workspace_id, generation) = (%s, %s)",
                    [workspace_id, generation],
                )
                row = await cursor.fetchone()
            if row is not None and row[0] is not None:
                return
            await asyncio.sleep(LOOK_SECONDS)


async def _serve() -> None:
    settings = load(WorkerSettings)
    logs.configure(log_format="json", level="ERROR")
    async with wiring.open_resources(settings) as parts:
        script = Script(parts)
        steps = {"new": script.new, "recreate": script.recreate}
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, workspace_id = line.split()
            started = time.perf_counter()
            await steps[word](workspace_id)
            took = timedelta(seconds=time.perf_counter() - started)
            sys.stdout.write(f"{took.total_seconds()}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_serve())
