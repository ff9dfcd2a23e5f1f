"""The ceiling of recreate requests: a workflow that counts signals, and its worker.

`python -m bench.baselines.signal_ceiling` runs the worker. It shares no code with the product; like the
product's, the worker is a separate process.
"""

import asyncio
import os
import sys

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

TASK_QUEUE = "counting"
STARTED = "counting.started"


@workflow.defn(name="CountingWorkflow")
class CountingWorkflow:
    """Counts signals."""

    def __init__(self) -> None:
        self._counted = 0

    @workflow.run
    async def run(self, counted: int = 0) -> None:
        """Count until the history is long enough, then continue as new."""
        self._counted += counted
        await workflow.wait_condition(workflow.info().is_continue_as_new_suggested)
        workflow.continue_as_new(self._counted)

    @workflow.signal
    def recreate(self, payload: dict[str, str | int]) -> None:  # noqa: ARG002 - it reads what the product reads
        """Count one signal."""
        self._counted += 1

    @workflow.query
    def counted(self) -> int:
        """Return the count."""
        return self._counted


async def main() -> None:
    """Serve until the process ends."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    # As the product's workers do.
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=TASK_QUEUE, workflows=[CountingWorkflow], workflow_runner=runner):
        sys.stdout.write(f"{STARTED}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
