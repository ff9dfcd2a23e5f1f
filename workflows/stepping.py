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
    from activities import ports, sweep_ports, volume_ports
    from workflows import display, fencing, lifecycle
    from workflows.facts import StepFailed
    from workflows.messages import WorkspaceSpec
    from workflows.policies import AWS, BOX, CONSULT, DATABASE, EC2, SNAPSHOT, Policy, urgency
    from workflows.state import Intent, State, Step

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


async def carry_out(step: Step, state: State, spec: WorkspaceSpec) -> lifecycle.Event:
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
    policy: Policy,
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


def failure(step: Step, error: ActivityError) -> StepFailed | lifecycle.RecordAhead:
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
    if cause.type == ports.SUPERSEDED:
        return lifecycle.RecordAhead()
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
        activity: Callable[[_Request], Awaitable[_Result]], request: _Request, policy: Policy
    ) -> _Result:
        return await call(
            activity,
            request,
            policy,
            activity_id=f"{step}-{generation}",
            summary=display.summary(step, generation),
            priority=urgency(state.flight),
        )

    match step:
        case Step.ENROLL:
            return await do(ports.enroll, ports.Enroll(workspace_id=workspace_id, spec=spec), DATABASE)
        case Step.OPEN:
            opening = ports.OpenGeneration(workspace_id=workspace_id, after=generation - 1)
            return await do(ports.open_generation, opening, DATABASE)
        case Step.CLOSE:
            closing = ports.CloseWorkspace(
                workspace_id=workspace_id, generation=generation, intent=state.intent
            )
            await do(ports.close_workspace, closing, DATABASE)
            return lifecycle.Closed()
        case Step.FENCE:
            fence = ports.FenceInstances(
                workspace_id=workspace_id,
                generation=generation,
                keep_attempt=attempt if state.intent is Intent.RUN else None,
                declared_dead=state.fence.declared_dead,
                proven_gone=fencing.proven_gone(state.fence, workflow.now()),
            )
            return await do(ports.fence_instances, fence, EC2)
        case Step.LAUNCH:
            launch = ports.Launch(workspace_id=workspace_id, generation=generation, attempt=attempt)
            return await do(ports.launch, launch, EC2)
        case Step.DETACH:
            detach = volume_ports.DetachVolume(
                workspace_id=workspace_id, generation=generation, attempt=attempt
            )
            return await do(volume_ports.detach_volume, detach, EC2)
        case Step.SNAPSHOT:
            snapshot = volume_ports.SnapshotVolume(workspace_id=workspace_id, generation=generation)
            return await do(volume_ports.snapshot_volume, snapshot, SNAPSHOT)
        case Step.ATTACH:
            attach = volume_ports.AttachVolume(
                workspace_id=workspace_id,
                generation=generation,
                attempt=attempt,
                instance_id=state.box.instance_id or "",
            )
            return await do(volume_ports.attach_volume, attach, EC2)
        case Step.DELETE_VOLUME:
            deletion = volume_ports.DeleteVolume(workspace_id=workspace_id, generation=generation)
            await do(volume_ports.delete_volume, deletion, EC2)
            return lifecycle.VolumeDeleted()
        case Step.ADDRESS:
            address = ports.Address(
                workspace_id=workspace_id,
                generation=generation,
                attempt=attempt,
                instance_id=state.box.instance_id or "",
            )
            return await do(ports.address, address, AWS)
        case Step.CANARY:
            canary = ports.AskCanary(
                workspace_id=workspace_id,
                generation=generation,
                attempt=state.box.canary_tries + 1,
                round=state.box.canary_round,
            )
            return await do(ports.ask_canary, canary, BOX)
        case Step.REMOVE_ADDRESS:
            await do(ports.remove_address, ports.RemoveAddress(workspace_id=workspace_id), AWS)
            return lifecycle.AddressRemoved()
        case Step.INQUIRE:
            inquiry = ports.Inquire(workspace_id=workspace_id, generation=generation)
            return await do(ports.inquire, inquiry, DATABASE)
        case Step.CONSULT:
            consultation = ports.ConsultFleet(workspace_id=workspace_id, generation=generation + 1)
            return await do(ports.consult_fleet, consultation, CONSULT)
        case Step.EVICT if state.intruder is None:
            ending = sweep_ports.EndOrphans(
                workspace_id=workspace_id, generation=generation, instances=state.strays
            )
            return await do(sweep_ports.end_orphans, ending, EC2)
        case Step.EVICT:
            eviction = ports.Evict(workspace_id=workspace_id, generation=state.intruder or 0)
            return await do(ports.evict, eviction, EC2)
        case Step.AWAIT_REGISTRATION | Step.PROCESS:
            raise AssertionError("waiting is no activity")
        case _ as never:
            assert_never(never)
