"""A workflow and an activity that fail with a recognizable text and function name."""

from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHistory
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

CANARY_FUNCTION = "canary_in_the_stack_trace"


def canary_in_the_stack_trace(text: str) -> None:
    raise ApplicationError(text, {"detail": text})


@activity.defn
async def failing_activity(text: str) -> None:
    canary_in_the_stack_trace(text)


@workflow.defn
class FailingWorkflow:
    @workflow.run
    async def run(self, text: str) -> None:
        await workflow.execute_activity(
            failing_activity,
            text,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )


async def fail_with(client: Client, workflow_id: str, text: str) -> WorkflowHistory:
    """The history of a run whose activity, and then the run itself, failed with the text."""
    async with Worker(
        client,
        task_queue=workflow_id,
        workflows=[FailingWorkflow],
        activities=[failing_activity],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        handle = await client.start_workflow(
            FailingWorkflow.run, text, id=workflow_id, task_queue=workflow_id
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await handle.result()
        assert text in str(caught.value.cause.__cause__)
        return await handle.fetch_history()
