"""WatchdogWorkflow: one round of the watchdog, started by a schedule."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.fleet.contract import Watch, WatchdogReport, watch
    from workflows.shared import names
    from workflows.shared.activity_options import WATCH
    from workflows.shared.markdown import plain
    from workflows.shared.run_activity import run_activity


@workflow.defn(name=names.WATCHDOG_TYPE)
class WatchdogWorkflow:
    """Requests recreates of boxes that stopped working. The result is its report."""

    @workflow.run
    async def run(self) -> WatchdogReport:
        """Run one round."""
        report = await run_activity(
            watch,
            Watch(),
            WATCH,
            activity_id="watch",
            summary="request recreates of boxes that stopped working",
        )
        workflow.set_current_details(details(report))
        return report


def details(report: WatchdogReport) -> str:
    """What the watchdog found and did, in Markdown."""
    lines = [
        f"**{'frozen' if report.frozen else 'watching'}** — "
        f"{report.stale} of {report.running} workspaces are stale; "
        f"{report.recreating} of at most {report.max_concurrent} automatic recreates are in progress.",
    ]
    if report.frozen:
        lines += ["", f"Automatic recreates are frozen: {plain(report.frozen)}. Manual requests pass."]
    if report.requested:
        lines += ["", f"Requested a recreate of: {', '.join(report.requested)}; {report.waiting} more wait."]
    return "\n".join(lines)
