"""Runs that no replay can go on with: finding them, and resetting them to where a replay parts from them.

Which are reset is judged in `workflows.repair.rules`; how a history is replayed is given.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, ResetReapplyType, WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.telemetry import metrics
from workflows.repair import rules
from workflows.repair.contract import FindStuck, StuckFound
from workflows.repair.rules import RepairDecision, RepairOutcome, StuckRun
from workflows.rollout.messages import ROLLOUT_TYPE
from workflows.workspace.messages import DELEGATION_TYPE, WORKFLOW_TYPE

FindDivergence = Callable[[WorkflowHistory], Awaitable[int | None]]
"""The end (its WorkflowTaskCompleted event) of the first task whose commands are other ones when our own code
replays it; None if it replays."""

WORKFLOW_TYPES = (WORKFLOW_TYPE, DELEGATION_TYPE, ROLLOUT_TYPE)
"""What lives long enough to be taken up; the others are started anew by their schedules."""

STUCK_QUERY = (
    f"ExecutionStatus = 'Running' AND WorkflowType IN ({', '.join(map(repr, WORKFLOW_TYPES))})"
    " AND TemporalReportedProblems = 'cause=WorkflowTaskFailedCauseNonDeterministicError'"
)
"""The server says so of a run after five tasks in a row, and takes it back with the next that succeeds."""

RESET_REASON = "onebox rescue"
"""How our resets are told from a human's."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Reaches the runs by the worker's own Temporal client."""

    find_divergence: FindDivergence

    @activity.defn(name="find_stuck")
    async def find_stuck(self, request: FindStuck) -> StuckFound:
        """One query of the visibility store."""
        async with activity_context(None):
            listed = activity.client().list_workflows(
                STUCK_QUERY, limit=request.limit, page_size=request.limit
            )
            try:
                runs = tuple([StuckRun(workflow_id=it.id, run_id=it.run_id) async for it in listed])
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                raise application_errors.non_retryable(
                    "problems_not_reported",
                    f"the server knows no search attribute TemporalReportedProblems ({error.message})",
                    hint="Upgrade the server, or pause the schedule onebox-rescue: runs that stand still "
                    "are then found by a human only.",
                ) from None
            for run in runs:
                await log.awarning("run.stuck", workspace=run.workflow_id, run_id=run.run_id)
            return StuckFound(runs=runs)

    @activity.defn(name="repair")
    async def repair(self, request: StuckRun) -> RepairDecision:
        """A reset throws away what the run did since; signals and updates that came since are taken in again
        (https://docs.temporal.io/workflow-execution/event#reset). What was done outside is on the record.
        """
        async with activity_context(request.workflow_id):
            client = activity.client()
            handle = client.get_workflow_handle(request.workflow_id, run_id=request.run_id)
            history = await handle.fetch_history()
            diverges_at = await self.find_divergence(history)
            judged = rules.decide(
                is_current=await _is_current(client, request),
                diverges_at=diverges_at,
                resets=count_resets(history.events),
            )
            if judged.outcome is RepairOutcome.RESET and diverges_at is not None:
                await _reset(client, request, to=diverges_at, why=judged.why)
            metrics.WORKFLOW_RUNS_STUCK.labels(judged.outcome).inc()
            await log.awarning("run.rescued", run_id=request.run_id, outcome=judged.outcome, why=judged.why)
            return judged


async def _is_current(client: Client, run: StuckRun) -> bool:
    """A reset of an earlier run would end the one that has taken its place, and serves the workspace now."""
    now = await client.get_workflow_handle(run.workflow_id).describe()
    return now.run_id == run.run_id and now.status is WorkflowExecutionStatus.RUNNING


async def _reset(client: Client, run: StuckRun, *, to: int, why: str) -> None:
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run.workflow_id, run_id=run.run_id),
            reason=f"{RESET_REASON}: {why}",
            workflow_task_finish_event_id=to,
            request_id=f"rescue-{run.run_id}-{to}",
            reset_reapply_type=ResetReapplyType.RESET_REAPPLY_TYPE_ALL_ELIGIBLE,
        )
    )


def count_resets(events: Iterable[HistoryEvent]) -> int:
    """How often we have reset this run, as far as its history still says."""
    failed = (
        event.workflow_task_failed_event_attributes
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    )
    reset = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    return sum(1 for each in failed if each.cause == reset and RESET_REASON in each.failure.message)
