"""Finds workflow runs that are stuck on a non-determinism error, and resets them to the last good task.

`workflows.repair.rules` decides which runs are reset. The worker provides the function that replays them.
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
from workflows.shared.names import DELEGATION_TYPE, ROLLOUT_TYPE, WORKFLOW_TYPE

FindDivergence = Callable[[WorkflowHistory], Awaitable[int | None]]
"""The WorkflowTaskCompleted event of the first task whose replay by this code gives other commands; None if
the whole history replays."""

WORKFLOW_TYPES = (WORKFLOW_TYPE, DELEGATION_TYPE, ROLLOUT_TYPE)
"""Long-lived workflows. Schedules start the other ones again."""

STUCK_QUERY = (
    f"ExecutionStatus = 'Running' AND WorkflowType IN ({', '.join(map(repr, WORKFLOW_TYPES))})"
    " AND TemporalReportedProblems = 'cause=WorkflowTaskFailedCauseNonDeterministicError'"
)
"""The server sets this search attribute after five failed tasks in a row. A successful task clears it."""

RESET_REASON = "onebox rescue"
"""Prefix of the reset reason: it distinguishes these resets from those of operators."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Uses the worker's Temporal client."""

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
                    f"Temporal has no search attribute TemporalReportedProblems: {error.message}",
                    hint="Upgrade the server, or pause the schedule onebox-repair and watch for stuck runs "
                    "yourself.",
                ) from None
            for run in runs:
                await log.awarning("run.stuck", workspace=run.workflow_id, run_id=run.run_id)
            return StuckFound(runs=runs)

    @activity.defn(name="repair")
    async def repair(self, request: StuckRun) -> RepairDecision:
        """Reset a run to its last good task. PostgreSQL has the effects of the discarded part.

        Temporal reapplies the signals and updates received since then
        (https://docs.temporal.io/workflow-execution/event#reset).
        """
        async with activity_context(request.workflow_id):
            client = activity.client()
            handle = client.get_workflow_handle(request.workflow_id, run_id=request.run_id)
            history = await handle.fetch_history()
            diverges_at = await self.find_divergence(history)
            decision = rules.decide(
                is_current=await _is_current(client, request),
                diverges_at=diverges_at,
                resets=count_resets(history.events),
            )
            if decision.outcome is RepairOutcome.RESET and diverges_at is not None:
                await _reset(client, request, to=diverges_at, why=decision.why)
            metrics.WORKFLOW_RUNS_STUCK.labels(decision.outcome).inc()
            await log.awarning(
                "run.repaired", run_id=request.run_id, outcome=decision.outcome, why=decision.why
            )
            return decision


async def _is_current(client: Client, run: StuckRun) -> bool:
    """Whether the run is the current one. A reset of an earlier run would terminate the current one."""
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
    """How often this run was reset by `repair`, as far as its history shows."""
    failed = (
        event.workflow_task_failed_event_attributes
        for event in events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    )
    reset = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    return sum(1 for each in failed if each.cause == reset and RESET_REASON in each.failure.message)
