"""RepairWorkflow: resets workflow runs stuck on a non-determinism error; started by a schedule."""

from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from workflows.repair import contract, rules
    from workflows.repair.rules import RepairDecision, RepairOutcome, StuckRun
    from workflows.shared import names
    from workflows.shared.activity_options import REPAIR, WATCH
    from workflows.shared.markdown import plain, table
    from workflows.shared.run_activity import failure_reason, run_activity


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairResult:
    """A stuck run, and what the round did about it."""

    workflow_id: str
    run_id: str
    outcome: RepairOutcome
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairReport:
    """What a round found and did: the workflow's result."""

    runs: tuple[RepairResult, ...]
    blocked_reason: str | None
    """Why none was reset; None if each was checked."""


@workflow.defn(name=names.REPAIR_TYPE)
class RepairWorkflow:
    """One round."""

    @workflow.run
    async def run(self) -> RepairReport:
        """Find the stuck runs, and replay and reset them one by one."""
        found = await run_activity(
            contract.find_stuck,
            contract.FindStuck(limit=rules.MAX_STUCK_RUNS + 1),
            WATCH,
            activity_id="find",
            summary="find workflow runs stuck on a non-determinism error",
        )
        blocked_reason = rules.blocked_reason(found.runs)
        if blocked_reason is None:
            runs = tuple([_result(run, await self._repair(run)) for run in found.runs])
        else:
            runs = tuple(
                _result(run, RepairDecision(outcome=RepairOutcome.LEFT, why=blocked_reason))
                for run in found.runs
            )
        report = RepairReport(runs=runs, blocked_reason=blocked_reason)
        workflow.set_current_details(details(report))
        return report

    async def _repair(self, run: StuckRun) -> RepairDecision:
        try:
            return await run_activity(
                contract.repair,
                run,
                REPAIR,
                activity_id=f"repair-{run.workflow_id}",
                summary=f"{run.workflow_id}: replay, and reset to the last task that replays",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return RepairDecision(
                outcome=RepairOutcome.LEFT, why=f"the next round tries again: {failure_reason(error)}"
            )


def details(report: RepairReport) -> str:
    """What a round found and did, in Markdown."""
    if not report.runs:
        return "No stuck workflow runs."
    lines = [f"**Stuck workflow runs: {len(report.runs)}**"]
    lines += table(
        ("workflow", "run", "outcome", "why"),
        ((plain(it.workflow_id), it.run_id, it.outcome, plain(it.why)) for it in report.runs),
    )
    return "\n".join(lines)


def _result(run: StuckRun, decision: RepairDecision) -> RepairResult:
    return RepairResult(
        workflow_id=run.workflow_id, run_id=run.run_id, outcome=decision.outcome, why=decision.why
    )
