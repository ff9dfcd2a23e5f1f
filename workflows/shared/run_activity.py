"""Runs an activity by its contract."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from workflows.shared.activity_options import ActivityOptions

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


async def run_activity(
    activity: Callable[[_Request], Awaitable[_Result]],
    request: _Request,
    options: ActivityOptions,
    *,
    activity_id: str,
    summary: str,
    priority: Priority = Priority.default,
) -> _Result:
    """Run an activity and return its result. The explicit ID lets a replay detect another order of steps.

    A cancellation waits until the activity has ended, so that nothing of it takes effect later.
    """
    return await workflow.execute_activity(
        activity,
        request,
        activity_id=activity_id,
        task_queue=options.task_queue,
        start_to_close_timeout=options.start_to_close,
        heartbeat_timeout=options.heartbeat,
        retry_policy=options.retry,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=summary,
        priority=priority,
    )


def failure_reason(error: ActivityError) -> str:
    """Why an activity failed, in one line: type and message of its error, or the timeout."""
    cause = error.cause
    return f"{cause.type}: {cause.message}" if isinstance(cause, ApplicationError) else f"timeout: {cause}"
