"""RepairWorkflow: one round of taking up runs that no replay can go on with; started by its schedule.

It decides nothing: whether a run is reset is `rescuing`'s, where to is what a replay by an activity comes to.
"""

from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.repair import contract, rules
    from workflows.repair.rules import RepairDecision, RepairOutcome, StuckRun
    from workflows.shared.activity_options import REPAIR, WATCH
    from workflows.shared.markdown import plain, table
    from workflows.workspace import messages
    from workflows.workspace.phases import runner


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """A run that stood still, and what became of it."""

    workflow_id: str
    run_id: str
    outcome: RepairOutcome
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a round saw and did; its workflow's result."""

    runs: tuple[RepairResult, ...]
    blocked_reason: str | None
    """Why none was touched; None if each was looked at."""


@workflow.defn(name=messages.REPAIR_TYPE)
class RepairWorkflow:
    """One round."""

    @workflow.run
    async def run(self) -> RepairReport:
        """Find them, and take up one after the other: each is replayed, which is work."""
        found = await runner.call(
            contract.find_stuck,
            contract.FindStuck(limit=rules.MAX_STUCK_RUNS + 1),
            WATCH,
            activity_id="find",
            summary="looking for runs that no replay can go on with",
        )
        blocked_reason = rules.blocked_reason(found.runs)
        if blocked_reason is None:
            runs = tuple([_told(run, await self._repair(run)) for run in found.runs])
        else:
            runs = tuple(
                _told(run, RepairDecision(outcome=RepairOutcome.LEFT, why=blocked_reason))
                for run in found.runs
            )
        report = RepairReport(runs=runs, blocked_reason=blocked_reason)
        workflow.set_current_details(details(report))
        return report

    async def _repair(self, run: StuckRun) -> RepairDecision:
        try:
            return await runner.call(
                contract.repair,
                run,
                REPAIR,
                activity_id=f"rescue-{run.workflow_id}",
                summary=f"{run.workflow_id}: replay it, reset it to where the replay parts",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            cause = error.cause
            why = f"{cause.type}: {cause.message}" if isinstance(cause, ApplicationError) else f"{cause}"
            return RepairDecision(
                outcome=RepairOutcome.LEFT, why=f"it is tried again by the next round: {why}"
            )


def details(report: RepairReport) -> str:
    """What a round saw and did, in Markdown."""
    if not report.runs:
        return "No run stands still."
    lines = [f"**{len(report.runs)} {'run stands' if len(report.runs) == 1 else 'runs stand'} still**"]
    lines += table(
        ("workflow", "run", "what became of it", "why"),
        ((plain(it.workflow_id), it.run_id, it.outcome, plain(it.why)) for it in report.runs),
    )
    return "\n".join(lines)


def _told(run: StuckRun, judged: RepairDecision) -> RepairResult:
    return RepairResult(
        workflow_id=run.workflow_id, run_id=run.run_id, outcome=judged.outcome, why=judged.why
    )
