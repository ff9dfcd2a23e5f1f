"""Evict: terminate superseded boxes that still call, and orphan instances of the workspace."""

from dataclasses import replace
from datetime import datetime

from workflows.shared.activity_options import EC2
from workflows.workspace import contract
from workflows.workspace.enums import Intent, Step
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import succeeded
from workflows.workspace.state import State

MAX_ORPHAN_INSTANCES = 50
"""The sweep reports the others again as long as they exist."""


def superseded_call(state: State, generation: int) -> State:
    """A superseded box called. A fence in progress terminates it anyway."""
    if generation >= state.generation or state.intent is not Intent.RUN or not state.fence.confirmed:
        return state
    return replace(state, superseded_caller=generation)


def orphan_found(state: State, instance_id: str) -> State:
    """Remember an orphan instance. Before termination, the activity checks it against the launches again."""
    known = (*state.orphan_instances, state.box.instance_id, "")
    if instance_id in known or len(state.orphan_instances) >= MAX_ORPHAN_INSTANCES:
        return state
    return replace(state, orphan_instances=(*state.orphan_instances, instance_id))


def _orphans_terminated(state: State, event: contract.OrphansTerminated, _: datetime) -> State:
    left = tuple(orphan for orphan in state.orphan_instances if orphan not in event.instances)
    return succeeded(replace(state, orphan_instances=left), Step.EVICT)


EVICT_SUPERSEDED = StepDefinition(
    step=Step.EVICT,
    doing="terminating a superseded box",
    due=lambda state: state.superseded_caller is not None,
    activity=contract.evict,
    request=lambda state, *_: contract.Evict(
        workspace_id=state.workspace_id, generation=state.superseded_caller or 0
    ),
    options=EC2,
    result=contract.Evicted,
    apply=lambda state, *_: succeeded(replace(state, superseded_caller=None), Step.EVICT),
)

EVICT_ORPHANS = StepDefinition(
    step=Step.EVICT,
    doing="terminating orphan instances",
    due=lambda state: bool(state.orphan_instances),
    activity=contract.terminate_orphans,
    request=lambda state, *_: contract.TerminateOrphans(
        workspace_id=state.workspace_id, generation=state.generation, instances=state.orphan_instances
    ),
    options=EC2,
    result=contract.OrphansTerminated,
    apply=_orphans_terminated,
)
