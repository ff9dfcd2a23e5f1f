"""Close: store the intent to stop or delete, and revoke all tokens."""

from dataclasses import replace

from workflows.shared.activity_options import DATABASE
from workflows.workspace import contract, events
from workflows.workspace.enums import Step
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.transitions import succeeded

CLOSE = StepDefinition(
    step=Step.CLOSE,
    doing="revoking the tokens",
    due=lambda state: not state.closed,
    activity=contract.close_workspace,
    request=lambda state, *_: contract.CloseWorkspace(
        workspace_id=state.workspace_id, generation=state.generation, intent=state.intent
    ),
    options=DATABASE,
    result=events.Closed,
    apply=lambda state, *_: succeeded(replace(state, closed=True), Step.CLOSE),
)
