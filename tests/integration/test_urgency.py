"""Task queues serve work by requester: people first, programs next, rollouts last."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from devstack.console import eventually
from devstack.processes import free_port
from devstack.temporal import Temporal
from workflows.workspace.phases.runner import step_priority
from workflows.workspace.requests import rollout_requester
from workflows.workspace.state import Provisioning

pytestmark = pytest.mark.anyio

ROLLING = rollout_requester("admin:alice", "november")
WAITING = (*(10 * [ROLLING]), *(3 * ["watchdog"]), *(3 * ["admin:bob"]))
"""Requesters of the steps, in the order of their start."""


@workflow.defn(name="Queueing", sandboxed=False)
class Queueing:
    """Starts one step for each, all at once."""

    @workflow.run
    async def run(self, queue: str) -> None:
        await asyncio.gather(
            *(
                workflow.execute_activity(
                    "step",
                    who,
                    task_queue=queue,
                    start_to_close_timeout=timedelta(seconds=30),
                    priority=step_priority(
                        Provisioning(generation=2, since=workflow.now(), requesters=(who,))
                    ),
                )
                for who in WAITING
            )
        )


ONE_PARTITION = {"matching.numTaskqueueReadPartitions": "1", "matching.numTaskqueueWritePartitions": "1"}
"""Each partition of a queue has its own order; a server has four partitions by default."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Temporal]:
    port = free_port()
    ui_port = next(other for other in iter(free_port, None) if other != port)
    with Temporal(tmp_path, port=port, ui_port=ui_port, dynamic_config=ONE_PARTITION) as server:
        yield server


async def test_a_backlog_serves_people_first_programs_next_and_rolls_last(server: Temporal) -> None:
    client = await Client.connect(server.address)
    workflow_id = "queueing"
    steps, served = f"{workflow_id}-steps", list[str]()

    @activity.defn(name="step")
    async def step(who: str) -> None:
        served.append(who)

    async with Worker(
        client,
        task_queue=workflow_id,
        workflows=[Queueing],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await client.start_workflow(Queueing.run, steps, id=workflow_id, task_queue=workflow_id)

        async def begun() -> int:
            return len((await handle.describe()).raw_description.pending_activities)

        await eventually(begun, lambda it: it == len(WAITING))

        async def queued() -> int:
            return await backlog(client, steps)

        await eventually(queued, lambda it: it == len(WAITING))
        async with Worker(client, task_queue=steps, activities=[step], max_concurrent_activities=1):
            await handle.result()
    assert served == [*(3 * ["admin:bob"]), *(3 * ["watchdog"]), *(10 * [ROLLING])]


async def backlog(client: Client, queue: str) -> int:
    """Number of waiting steps, by the server's estimate."""
    answer = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(
            namespace=client.namespace,
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
    )
    return int(answer.stats.approximate_backlog_count)
