"""Workflow code with a change that breaks determinism, made on purpose: steps in another order.

What it breaks has to be caught; nothing else uses it.
"""

from temporalio import workflow
from typing_extensions import override

from workflows.shared import names
from workflows.workspace import messages
from workflows.workspace.phases.definition import StepDefinition
from workflows.workspace.phases.fence import FENCE
from workflows.workspace.phases.launch import LAUNCH
from workflows.workspace.state import State
from workflows.workspace.workflow import WorkspaceWorkflow


@workflow.defn(name=names.WORKFLOW_TYPE, sandboxed=False)
class LaunchesFirst(WorkspaceWorkflow):
    """Launches before the old box is fenced; the very thing that must never happen."""

    @workflow.init
    def __init__(self, *payload: object) -> None:
        super().__init__(*payload)

    @workflow.run
    @override
    async def run(self, *payload: object) -> messages.WorkspaceStatus:
        """As ever."""
        return await super().run(*payload)

    @override
    async def _run_step(self, step: StepDefinition, begun: State) -> None:
        other = LAUNCH if step is FENCE else FENCE if step is LAUNCH else step
        await super()._run_step(other, begun)
