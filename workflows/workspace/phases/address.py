"""Address: wait until the instance runs, and point the workspace's DNS name at it. A deletion removes it.

An instance that EC2 leaves pending is replaced after its deadline.
"""

from dataclasses import replace
from datetime import datetime

from workflows.shared.activity_options import AWS
from workflows.workspace import backoff, contract, events
from workflows.workspace.enums import Step
from workflows.workspace.phases.definition import Deadline, StepDefinition
from workflows.workspace.phases.transitions import (
    instance_ended,
    record_failure,
    request_recreate,
    succeeded,
)
from workflows.workspace.state import Settled, State

PENDING = "instance_pending"
"""Error code of `address` and `attach_volume` while EC2 has not started the instance."""


def addressed(state: State, event: contract.AddressResult, at: datetime) -> State:
    """The box runs at its address, or ended before it ran."""
    if event.gone:
        return instance_ended(state, Step.ADDRESS, event.detail, at)
    box = replace(state.box, private_ip=event.private_ip, dns_name=event.dns_name, running_since=at)
    return succeeded(replace(state, box=box), Step.ADDRESS)


def _instance_deadline(state: State) -> datetime | None:
    """When the instance must be running. A running one that only waits for Route 53 is not replaced."""
    if state.provisioning is None or state.box.launched_at is None or state.box.running_since is not None:
        return None
    if not any(error.code == PENDING and error.generation == state.generation for error in state.errors):
        return None
    return state.box.launched_at + state.timings.instance_deadline


def _instance_deadline_passed(state: State, at: datetime) -> State:
    minutes = state.timings.instance_deadline.total_seconds() / 60
    missed = events.StepFailed(
        step=Step.ADDRESS,
        code="instance_not_running",
        message=f"{state.box.instance_id} was still pending {minutes:g} min after its launch",
        hint="Look at the instance in EC2. If others of its type or zone are pending too, change the spec.",
        retryable=True,
    )
    budget = backoff.record_failed_recreate(state, phase=missed.step, code=missed.code)
    state = replace(record_failure(state, missed, at), budget=budget)
    return request_recreate(state.now_waiting(Settled()), at)


ADDRESS = StepDefinition(
    step=Step.ADDRESS,
    doing="waiting for the instance to run, then writing the DNS name",
    due=lambda state: state.provisioning is not None and state.box.running_since is None,
    activity=contract.address,
    request=lambda state, *_: contract.Address(
        workspace_id=state.workspace_id,
        generation=state.generation,
        attempt=state.box.attempt,
        instance_id=state.box.instance_id or "",
    ),
    options=AWS,
    result=contract.AddressResult,
    apply=addressed,
    interruptible=True,
    halts=True,
    provisions=True,
)

REMOVE_ADDRESS = StepDefinition(
    step=Step.REMOVE_ADDRESS,
    doing="removing the DNS name",
    due=lambda state: not state.address_removed,
    activity=contract.remove_address,
    request=lambda state, *_: contract.RemoveAddress(workspace_id=state.workspace_id),
    options=AWS,
    result=events.AddressRemoved,
    apply=lambda state, *_: succeeded(replace(state, address_removed=True), Step.REMOVE_ADDRESS),
)

INSTANCE_DEADLINE = Deadline(at=_instance_deadline, passed=_instance_deadline_passed)
