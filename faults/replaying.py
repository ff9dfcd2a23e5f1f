"""Replays the workflow runs of the workspaces, as an operator and the next worker do.

Uses the product's own replay, because that is what has to work.
"""

from collections.abc import Iterable

from temporalio.client import WorkflowHistory

from faults.collectors import Run
from faults.invariants.evidence import ReplayResult
from workers.history.replay_run import replay_run

RESET = "workflow_execution_terminated"
"""Status of a run that was reset; fault injection terminates no run."""


async def replayed(runs: Iterable[Run]) -> tuple[ReplayResult, ...]:
    """Replay the runs and return the results."""
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
