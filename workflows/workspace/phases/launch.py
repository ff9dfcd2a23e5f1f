"""Launch: RunInstances for the current attempt, or adoption of the instance that it already launched."""

from dataclasses import replace
from datetime import datetime, timedelta

from workflows.shared.activity_options import EC2
from workflows.workspace import contract
from workflows.workspace.enums import Step
from workflows.workspace.events import StepFailed
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import record_failure, retry, succeeded
from workflows.workspace.state import Fence, Provisioning, State

CAPACITY_RETRY_INTERVAL = timedelta(seconds=60)
"""The wait after every subnet and type was refused. Capacity returns within minutes."""

FENCE_AGAIN_AFTER = timedelta(seconds=2)


def launched(state: State, event: contract.LaunchResult, at: datetime) -> State:
    """Continue with the instance, with the next attempt after a refusal, or with another fence."""
    if event.orphan_instances:
        fence = Fence(since=at, snapshot_over=state.fence.snapshot_over)
        return retry(replace(state, fence=fence), Step.FENCE, at, after=FENCE_AGAIN_AFTER)
    if event.capacity_code is None:
        box = replace(state.box, instance_id=event.instance_id, launched_at=at, private_ip=event.private_ip)
        return succeeded(replace(state, box=box), Step.LAUNCH)
    failure = StepFailed(
        step=Step.LAUNCH,
        code=event.capacity_code,
        message=event.capacity_message,
        hint="Onebox tries the next subnet or instance type of the spec.",
        retryable=True,
    )
    attempt = state.box.attempt
    state = replace(
        record_failure(state, failure, at), box=replace(state.box, attempt=attempt + 1), retry=None
    )
    if attempt % event.offerings == 0:
        return retry(state, Step.LAUNCH, at, after=CAPACITY_RETRY_INTERVAL)
    return state


def unrecorded_instance_found(state: State, at: datetime) -> State:
    """The sweep found the instance of a launch whose response was lost: launch again, which adopts it."""
    if state.box.instance_id is not None or state.opened < state.generation:
        return state
    if state.provisioning is None:
        state = replace(state, waiting=Provisioning(generation=state.generation, since=at))
    again = state.retry is not None and state.retry.step is Step.LAUNCH
    return replace(state, retry=None) if again else state


LAUNCH = StepDefinition(
    step=Step.LAUNCH,
    doing="launching the instance",
    due=lambda state: state.provisioning is not None and state.box.instance_id is None,
    activity=contract.launch,
    request=lambda state, *_: contract.Launch(
        workspace_id=state.workspace_id, generation=state.generation, attempt=state.box.attempt
    ),
    options=EC2,
    result=contract.LaunchResult,
    apply=launched,
    halts=True,
    provisions=True,
)
