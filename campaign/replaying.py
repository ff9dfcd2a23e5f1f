"""Replays the runs of a campaign's workspaces, as on-call and the next worker do.

It judges nothing; the replay is the product's own, for it is what has to work.
"""

from collections.abc import Iterable

from temporalio.client import WorkflowHistory

from campaign.judging.evidence import Replayed
from campaign.witnesses import Run
from workers.recall import recall

RESET = "workflow_execution_terminated"
"""How a run ends that is reset; nobody terminates one in a campaign."""


async def replayed(runs: Iterable[Run]) -> tuple[Replayed, ...]:
    """What comes of each."""
    return tuple([await _replayed(run) for run in runs])


async def _replayed(run: Run) -> Replayed:
    recalled = await recall(WorkflowHistory.from_json(run.workspace, run.text))
    failure = recalled.failure
    if failure is not None and recalled.difference is not None:
        failure = f"{recalled.difference} ({failure})"
    return Replayed(
        workspace=run.workspace,
        run_id=run.run_id,
        at=run.last.at,
        failure=failure,
        taken_up=run.last.type == RESET,
    )
