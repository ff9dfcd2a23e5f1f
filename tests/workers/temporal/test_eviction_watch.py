"""A run that the SDK cannot evict, on a real server: it is detected, and shutdown does not wait for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from devstack.console import eventually
from devstack.processes import free_port
from devstack.temporal import Temporal
from workers.temporal import eviction_watch

pytestmark = pytest.mark.anyio

TIMEOUT_SECONDS = 60.0
SHORT = timedelta(seconds=0.1)


@workflow.defn
class Unevictable:
    """Ignores its eviction."""

    evictable: ClassVar[bool] = False

    @workflow.run
    async def run(self) -> None:
        while not Unevictable.evictable:
            try:
                await workflow.wait_condition(lambda: False)
            except BaseException:
                if Unevictable.evictable:
                    raise


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Temporal]:
    port, ui_port = free_port(), free_port()
    with Temporal(tmp_path, port=port, ui_port=ui_port) as server:
        yield server


@pytest.fixture
async def worker(server: Temporal) -> AsyncIterator[Worker]:
    """A running worker; its run becomes evictable at the end."""
    client = await Client.connect(server.address)
    Unevictable.evictable = False
    async with Worker(
        client,
        task_queue="unevictable",
        workflows=[Unevictable],
        max_cached_workflows=0,
        workflow_runner=UnsandboxedWorkflowRunner(),
    ) as worker:
        yield worker
        Unevictable.evictable = True


async def make_stuck(worker: Worker) -> None:
    await worker.client.start_workflow(Unevictable.run, id="unevictable", task_queue="unevictable")
    async with asyncio.timeout(TIMEOUT_SECONDS):
        await eviction_watch.wait_until_stuck([worker], tolerance=SHORT)


async def test_a_worker_that_evicts_its_runs_is_not_stuck(worker: Worker) -> None:
    Unevictable.evictable = True
    handle = await worker.client.start_workflow(Unevictable.run, id="unevictable", task_queue="unevictable")
    await handle.result()
    assert not eviction_watch.is_stuck(worker)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * eviction_watch.CHECK_INTERVAL.total_seconds()):
            await eviction_watch.wait_until_stuck([worker], tolerance=SHORT)


async def test_a_worker_is_stuck_until_the_run_is_evicted(worker: Worker) -> None:
    await make_stuck(worker)
    assert eviction_watch.is_stuck(worker)
    Unevictable.evictable = True

    async def is_stuck() -> bool:
        return eviction_watch.is_stuck(worker)

    await eventually(is_stuck, lambda stuck: not stuck)


async def test_the_sdk_waits_for_the_run_forever(worker: Worker) -> None:
    await make_stuck(worker)
    assert not await eviction_watch.shut_down([worker], within=timedelta(seconds=3)), (
        "the SDK's shutdown returns despite the run: workers/temporal/eviction_watch.py can be removed"
    )
    Unevictable.evictable = True
    assert await eviction_watch.shut_down([worker], within=timedelta(seconds=TIMEOUT_SECONDS))
