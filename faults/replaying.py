"""Replays the runs of a campaign's workspaces, as on-call and the next worker do.

It judges nothing; the replay is the product's own, for it is what has to work.
"""

from collections.abc import Iterable

from temporalio.client import WorkflowHistory

from faults.collectors import Run
from faults.invariants.evidence import ReplayResult
from workers.history.replay_run import replay_run

RESET = "workflow_execution_terminated"
"""How a run ends that is reset; nobody terminates one in a campaign."""


async def replayed(runs: Iterable[Run]) -> tuple[ReplayResult, ...]:
    """What comes of each."""
    return tuple([await _replayed(run) for run in runs])


async def _replayed(run: Run) -> ReplayResult:
    recalled = await replay_run(WorkflowHistory.from_json(run.workspace, run.text))
    failure = recalled.failure
    if failure is not None and recalled.difference is not None:
        failure = f"{recalled.difference} ({failure})"
    return ReplayResult(
        workspace=run.workspace,
        run_id=run.run_id,
        at=run.last.at,
        failure=failure,
        reset=run.last.type == RESET,
    )
