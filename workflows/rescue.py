"""RescueWorkflow: one round of taking up runs that no replay can go on with; started by its schedule.

It decides nothing: whether a run is reset is `rescuing`'s, where to is what a replay by an activity comes to.
"""

from dataclasses import dataclass

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities import rescue_ports
    from workflows import messages, rescuing, stepping
    from workflows.markdown import plain, table
    from workflows.policies import RESCUE, WATCH
    from workflows.rescuing import Fate, Judged, StuckRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescued:
    """A run that stood still, and what became of it."""

    workflow_id: str
    run_id: str
    fate: Fate
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RescueReport:
    """What a round saw and did; its workflow's result."""

    runs: tuple[Rescued, ...]
    held: str | None
    """Why none was touched; None if each was looked at."""


@workflow.defn(name=messages.RESCUE_TYPE)
class RescueWorkflow:
    """One round."""

    @workflow.run
    async def run(self) -> RescueReport:
        """Find them, and take up one after the other: each is replayed, which is work."""
        found = await stepping.call(
            rescue_ports.find_stuck,
            rescue_ports.FindStuck(most=rescuing.MOST_AT_ONCE + 1),
            WATCH,
            activity_id="find",
            summary="looking for runs that no replay can go on with",
        )
        held = rescuing.held(found.runs)
        if held is None:
            runs = tuple([_told(run, await self._rescued(run)) for run in found.runs])
        else:
            runs = tuple(_told(run, Judged(fate=Fate.LEFT, why=held)) for run in found.runs)
        report = RescueReport(runs=runs, held=held)
        workflow.set_current_details(details(report))
        return report

    async def _rescued(self, run: StuckRun) -> Judged:
        try:
            return await stepping.call(
                rescue_ports.rescue,
                run,
                RESCUE,
                activity_id=f"rescue-{run.workflow_id}",
                summary=f"{run.workflow_id}: replay it, reset it to where the replay parts",
            )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            cause = error.cause
            why = f"{cause.type}: {cause.message}" if isinstance(cause, ApplicationError) else f"{cause}"
            return Judged(fate=Fate.LEFT, why=f"it is tried again by the next round: {why}")


def details(report: RescueReport) -> str:
    """What a round saw and did, in Markdown."""
    if not report.runs:
        return "No run stands still."
    lines = [f"**{len(report.runs)} {'run stands' if len(report.runs) == 1 else 'runs stand'} still**"]
    lines += table(
        ("workflow", "run", "what became of it", "why"),
        ((plain(it.workflow_id), it.run_id, it.fate, plain(it.why)) for it in report.runs),
    )
    return "\n".join(lines)


def _told(run: StuckRun, judged: Judged) -> Rescued:
    return Rescued(workflow_id=run.workflow_id, run_id=run.run_id, fate=judged.fate, why=judged.why)
