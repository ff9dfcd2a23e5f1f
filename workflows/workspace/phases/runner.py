"""Runs the activity of a step, and turns its result or failure into an event."""

import asyncio

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.shared.activity_options import MANUAL_PRIORITY, ROLLOUT_PRIORITY
    from workflows.shared.run_activity import run_activity
    from workflows.workspace import contract
    from workflows.workspace.enums import Step
    from workflows.workspace.events import Event, StateBehindRecord, StepFailed
    from workflows.workspace.messages import WorkspaceSpec
    from workflows.workspace.phases.definition import StepDefinition
    from workflows.workspace.requests import is_human, is_rollout_request
    from workflows.workspace.state import Provisioning, State


async def run_step(definition: StepDefinition, state: State, spec: WorkspaceSpec) -> Event:
    """The event of the step's activity: its result, or `StepFailed`."""
    try:
        result = await run_activity(
            definition.activity,
            definition.request(state, spec, workflow.now()),
            definition.options,
            activity_id=f"{definition.step}-{state.generation}",
            summary=f"generation {state.generation}: {definition.doing}",
            priority=step_priority(state.provisioning),
        )
    except ActivityError as error:
        if is_cancelled_exception(error):
            # Ends this step's task as cancelled; an ActivityError would end the workflow.
            raise asyncio.CancelledError from error
        return failure(definition.step, error)
    event: Event = definition.result() if result is None else result
    return event


def failure(step: Step, error: ActivityError) -> StepFailed | StateBehindRecord:
    """The event for a failed activity."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return StepFailed(
            step=step,
            code="activity_timeout",
            message=f"{step} timed out: {cause}",
            hint="Check that workers run and reach PostgreSQL and AWS. Onebox retries.",
            retryable=True,
        )
    if cause.type == contract.SUPERSEDED:
        return StateBehindRecord()
    refused = contract.REFUSED in cause.details[1:]
    return StepFailed(
        step=step,
        code=cause.type or "unknown",
        message=cause.message,
        hint=str(cause.details[0]) if cause.details else "See the worker's log for this activity.",
        retryable=refused or not cause.non_retryable,
        refused=refused,
    )


def step_priority(provisioning: Provisioning | None) -> Priority:
    """The priority of a step's activity in its task queue: manual requests first, rollouts last."""
    requesters = provisioning.requesters if provisioning is not None else ()
    if any(is_human(each) and not is_rollout_request(each) for each in requesters):
        return MANUAL_PRIORITY
    return ROLLOUT_PRIORITY if requesters and all(map(is_rollout_request, requesters)) else Priority.default
