"""Carrying a step out: the activity that it is, and the fact that comes of it.

Builds requests and translates failures; which step is due is the lifecycle's decision.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, assert_never

from temporalio import workflow
from temporalio.common import Priority
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.orphans import contract as orphans_contract
    from workflows.shared.activity_options import (
        AWS,
        BOX,
        DATABASE,
        EC2,
        FLEET_PERMIT,
        SNAPSHOT,
        ActivityOptions,
        step_priority,
    )
    from workflows.volume import contract as volume_contract
    from workflows.workspace import contract as workspace_contract
    from workflows.workspace import lifecycle, status
    from workflows.workspace.events import StepFailed
    from workflows.workspace.messages import WorkspaceSpec
    from workflows.workspace.phases import fencing
    from workflows.workspace.state import Intent, State, Step

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


async def run_step(step: Step, state: State, spec: WorkspaceSpec) -> lifecycle.Event:
    """Run the step's activity; a failure is a fact like any other result."""
    try:
        return await _run(step, state, spec)
    except ActivityError as error:
        if is_cancelled_exception(error):
            # Ends this step's task as cancelled; as an error of an activity it would end the workflow.
            raise asyncio.CancelledError from error
        return failure(step, error)


async def call(
    activity: Callable[[_Request], Awaitable[_Result]],
    request: _Request,
    policy: ActivityOptions,
    *,
    activity_id: str,
    summary: str,
    priority: Priority = Priority.default,
) -> _Result:
    """Run an activity by its stub. The explicit ID makes a replay notice another order of steps."""
    return await workflow.execute_activity(
        activity,
        request,
        activity_id=activity_id,
        task_queue=policy.task_queue,
        start_to_close_timeout=policy.start_to_close,
        heartbeat_timeout=policy.heartbeat,
        retry_policy=policy.retry,
        summary=summary,
        priority=priority,
    )


def failure(step: Step, error: ActivityError) -> StepFailed | lifecycle.StateBehindRecord:
    """The fact that a failed activity is."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return StepFailed(
            step=step,
            code="activity_timeout",
            message=f"{step} did not end in time: {cause}",
            hint="See whether workers run and reach what they call; it is tried again by itself.",
            retryable=True,
        )
    if cause.type == workspace_contract.SUPERSEDED:
        return lifecycle.StateBehindRecord()
    return StepFailed(
        step=step,
        code=cause.type or "unknown",
        message=cause.message,
        hint=str(cause.details[0]) if cause.details else "See the worker's log for this activity.",
        retryable=not cause.non_retryable,
    )


async def _run(step: Step, state: State, spec: WorkspaceSpec) -> lifecycle.Event:
    workspace_id, generation, attempt = state.workspace_id, state.generation, state.box.attempt

    async def do(
        activity: Callable[[_Request], Awaitable[_Result]], request: _Request, policy: ActivityOptions
    ) -> _Result:
        return await call(
            activity,
            request,
            policy,
            activity_id=f"{step}-{generation}",
            summary=status.summary(step, generation),
            priority=step_priority(state.provisioning),
        )

    match step:
        case Step.ENROLL:
            return await do(
                workspace_contract.enroll,
                workspace_contract.Enroll(workspace_id=workspace_id, spec=spec),
                DATABASE,
            )
        case Step.OPEN:
            opening = workspace_contract.OpenGeneration(workspace_id=workspace_id, after=generation - 1)
            return await do(workspace_contract.open_generation, opening, DATABASE)
        case Step.CLOSE:
            closing = workspace_contract.CloseWorkspace(
                workspace_id=workspace_id, generation=generation, intent=state.intent
            )
            await do(workspace_contract.close_workspace, closing, DATABASE)
            return lifecycle.Closed()
        case Step.FENCE:
            fence = workspace_contract.FenceInstances(
                workspace_id=workspace_id,
                generation=generation,
                keep_attempt=attempt if state.intent is Intent.RUN else None,
                declared_dead=state.fence.declared_dead,
                proven_gone=fencing.proven_gone(state.fence, workflow.now()),
            )
            return await do(workspace_contract.fence_instances, fence, EC2)
        case Step.LAUNCH:
            launch = workspace_contract.Launch(
                workspace_id=workspace_id, generation=generation, attempt=attempt
            )
            return await do(workspace_contract.launch, launch, EC2)
        case Step.DETACH:
            detach = volume_contract.DetachVolume(
                workspace_id=workspace_id, generation=generation, attempt=attempt
            )
            return await do(volume_contract.detach_volume, detach, EC2)
        case Step.SNAPSHOT:
            snapshot = volume_contract.SnapshotVolume(workspace_id=workspace_id, generation=generation)
            return await do(volume_contract.snapshot_volume, snapshot, SNAPSHOT)
        case Step.ATTACH:
            attach = volume_contract.AttachVolume(
                workspace_id=workspace_id,
                generation=generation,
                attempt=attempt,
                instance_id=state.box.instance_id or "",
            )
            return await do(volume_contract.attach_volume, attach, EC2)
        case Step.DELETE_VOLUME:
            deletion = volume_contract.DeleteVolume(workspace_id=workspace_id, generation=generation)
            await do(volume_contract.delete_volume, deletion, EC2)
            return lifecycle.VolumeDeleted()
        case Step.ADDRESS:
            address = workspace_contract.Address(
                workspace_id=workspace_id,
                generation=generation,
                attempt=attempt,
                instance_id=state.box.instance_id or "",
            )
            return await do(workspace_contract.address, address, AWS)
        case Step.CANARY:
            canary = workspace_contract.AskCanary(
                workspace_id=workspace_id,
                generation=generation,
                attempt=state.box.canary_attempts + 1,
                round=state.box.canary_round,
            )
            return await do(workspace_contract.ask_canary, canary, BOX)
        case Step.REMOVE_ADDRESS:
            await do(
                workspace_contract.remove_address,
                workspace_contract.RemoveAddress(workspace_id=workspace_id),
                AWS,
            )
            return lifecycle.AddressRemoved()
        case Step.CHECK_REGISTRATION:
            inquiry = workspace_contract.CheckRegistration(workspace_id=workspace_id, generation=generation)
            return await do(workspace_contract.check_registration, inquiry, DATABASE)
        case Step.FLEET_PERMIT:
            consultation = workspace_contract.RequestFleetPermit(
                workspace_id=workspace_id, generation=generation + 1
            )
            return await do(workspace_contract.request_fleet_permit, consultation, FLEET_PERMIT)
        case Step.EVICT if state.superseded_caller is None:
            ending = orphans_contract.TerminateOrphans(
                workspace_id=workspace_id, generation=generation, instances=state.orphan_instances
            )
            return await do(orphans_contract.terminate_orphans, ending, EC2)
        case Step.EVICT:
            eviction = workspace_contract.Evict(
                workspace_id=workspace_id, generation=state.superseded_caller or 0
            )
            return await do(workspace_contract.evict, eviction, EC2)
        case Step.AWAIT_REGISTRATION | Step.PROCESS:
            raise AssertionError("waiting is no activity")
        case _ as never:
            assert_never(never)
