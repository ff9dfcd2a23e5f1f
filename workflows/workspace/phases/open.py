"""Open: make the next generation the current one in PostgreSQL, and revoke the tokens of the old one."""

from dataclasses import replace
from datetime import datetime

from workflows.shared.activity_options import DATABASE
from workflows.workspace import contract
from workflows.workspace.enums import Step
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import succeeded
from workflows.workspace.state import State


def opened(state: State, event: contract.GenerationOpened, _: datetime) -> State:
    """Take the number of the generation from PostgreSQL; it may differ from the expected one."""
    waiting = state.waiting
    if state.provisioning is not None:
        waiting = replace(state.provisioning, generation=event.generation)
    state = replace(
        state,
        generation=event.generation,
        opened=event.generation,
        timings=event.timings,
        has_volume=event.has_volume,
        snapshots=event.snapshots,
        waiting=waiting,
    )
    return succeeded(state, Step.OPEN)


OPEN = StepDefinition(
    step=Step.OPEN,
    doing="opening the generation and revoking the old tokens",
    due=lambda state: state.provisioning is not None and state.opened < state.generation,
    activity=contract.open_generation,
    request=lambda state, *_: contract.OpenGeneration(
        workspace_id=state.workspace_id, after=state.generation - 1
    ),
    options=DATABASE,
    result=contract.GenerationOpened,
    apply=opened,
    halts=True,
    provisions=True,
)
