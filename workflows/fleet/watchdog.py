"""WatchdogWorkflow: one round of looking for workspaces that need another box; started by a schedule.

It decides nothing: what is due is the query's, what becomes of a request its workspace's.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.shared.activity_options import WATCH
    from workflows.workspace import contract, messages, status
    from workflows.workspace.events import WatchdogReport
    from workflows.workspace.phases import runner


@workflow.defn(name=messages.WATCHDOG_TYPE)
class WatchdogWorkflow:
    """Short-lived: its result is what was seen, for whoever opens it in the UI."""

    @workflow.run
    async def run(self) -> WatchdogReport:
        """Go one round."""
        watched = await runner.call(
            contract.watch,
            contract.Watch(),
            WATCH,
            activity_id="watch",
            summary="looking for workspaces that need another box",
        )
        workflow.set_current_details(status.watchdog_details(watched))
        return watched
