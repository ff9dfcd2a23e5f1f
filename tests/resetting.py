"""Resets of runs, as an admin makes them with the CLI."""

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

from devstack.console import Console


async def ended_tasks(console: Console, workspace: str) -> list[int]:
    """The WorkflowTaskCompleted events of the present run, oldest first: where a reset may go."""
    history = await console.workflow(workspace).fetch_history()
    completed = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    return [event.event_id for event in history.events if event.event_type == completed]


async def reset(console: Console, workspace: str, *, to: int) -> None:
    """Throw away what the present run did since; the signals and updates since then come again."""
    described = await console.workflow(workspace).describe()
    await console.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=console.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workspace, run_id=described.run_id),
            reason="admin:alice: a test",
            workflow_task_finish_event_id=to,
            request_id=f"{workspace}-{to}",
            reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_ALL_ELIGIBLE,
        )
    )
