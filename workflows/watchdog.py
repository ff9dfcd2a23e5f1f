"""WatchdogWorkflow: one round of looking for workspaces that need another box; started by a schedule.

It decides nothing: what is due is the query's, what becomes of a request its workspace's.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities import ports
    from workflows import display, messages, stepping
    from workflows.facts import Watched
    from workflows.policies import WATCH


@workflow.defn(name=messages.WATCHDOG_TYPE)
class WatchdogWorkflow:
    """Short-lived: its result is what was seen, for whoever opens it in the UI."""

    @workflow.run
    async def run(self) -> Watched:
        """Go one round."""
        watched = await stepping.call(
            ports.watch,
            ports.Watch(),
            WATCH,
            activity_id="watch",
            summary="looking for workspaces that need another box",
        )
        workflow.set_current_details(display.watched(watched))
        return watched
