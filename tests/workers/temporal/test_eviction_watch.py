"""A run that the SDK cannot let go of, on a real server: it is seen, and holds the end up only so long."""

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

PATIENCE_SECONDS = 60.0
AT_ONCE = timedelta(seconds=0.1)


@workflow.defn
class Clinging:
    """Goes on after it was told that it is being evicted."""

    let_go: ClassVar[bool] = False

    @workflow.run
    async def run(self) -> None:
        while not Clinging.let_go:
            try:
                await workflow.wait_condition(lambda: False)
            except BaseException:
                if Clinging.let_go:
                    raise


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Temporal]:
    port, ui_port = free_port(), free_port()
    with Temporal(tmp_path, port=port, ui_port=ui_port) as server:
        yield server


@pytest.fixture
async def worker(server: Temporal) -> AsyncIterator[Worker]:
    """Runs; what clings to it lets go at the end."""
    client = await Client.connect(server.address)
    Clinging.let_go = False
    async with Worker(
        client,
        task_queue="clinging",
        workflows=[Clinging],
        max_cached_workflows=0,
        workflow_runner=UnsandboxedWorkflowRunner(),
    ) as worker:
        yield worker
        Clinging.let_go = True


async def until_it_clings(worker: Worker) -> None:
    await worker.client.start_workflow(Clinging.run, id="clinging", task_queue="clinging")
    async with asyncio.timeout(PATIENCE_SECONDS):
        await eviction_watch.wait_until_stuck([worker], tolerance=AT_ONCE)


async def test_a_worker_that_lets_go_of_its_runs_is_not_stuck(worker: Worker) -> None:
    Clinging.let_go = True
    handle = await worker.client.start_workflow(Clinging.run, id="clinging", task_queue="clinging")
    await handle.result()
    assert not eviction_watch.is_stuck(worker)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2 * eviction_watch.CHECK_INTERVAL.total_seconds()):
            await eviction_watch.wait_until_stuck([worker], tolerance=AT_ONCE)


async def test_a_run_that_is_not_let_go_is_seen_and_forgotten_once_it_is(worker: Worker) -> None:
    await until_it_clings(worker)
    assert eviction_watch.is_stuck(worker)
    Clinging.let_go = True

    async def is_stuck() -> bool:
        return eviction_watch.is_stuck(worker)

    await eventually(is_stuck, lambda seen: not seen)


async def test_the_end_waits_for_it_no_longer_than_it_may(worker: Worker) -> None:
    await until_it_clings(worker)
    assert not await eviction_watch.shut_down([worker], within=AT_ONCE)
    Clinging.let_go = True
    assert await eviction_watch.shut_down([worker], within=timedelta(seconds=PATIENCE_SECONDS))
