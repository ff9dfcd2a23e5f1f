"""Address: wait until the instance runs, and point the workspace's DNS name at it. A deletion removes it."""

from dataclasses import replace
from datetime import datetime

from workflows.shared.activity_options import AWS
from workflows.workspace import contract, events
from workflows.workspace.enums import Step
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import instance_ended, succeeded
from workflows.workspace.state import State


def addressed(state: State, event: contract.AddressResult, at: datetime) -> State:
    """The box runs at its address, or ended before it ran."""
    if event.gone:
        return instance_ended(state, Step.ADDRESS, event.detail, at)
    box = replace(state.box, private_ip=event.private_ip, dns_name=event.dns_name, running_since=at)
    return succeeded(replace(state, box=box), Step.ADDRESS)


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
