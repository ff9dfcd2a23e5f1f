"""Alternative design: one workflow per workspace, with heartbeats as signals.

Run as `python -m bench.alternatives.signals api|worker`. Rationale of such a team: one place holds the whole
state of a workspace, including heartbeats. A workflow does one thing after the other, so no lock is needed.
Requests are queued, so that none is lost. A restart is one activity with Temporal's retries; it begins by
terminating what exists, so that it can be retried. It does not wait for the old instance, because nothing is
shared with it. The run continues as new, with the queue, when Temporal suggests it.
"""

import asyncio
import os
import sys
from datetime import datetime, timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

with workflow.unsafe.imports_passed_through():
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from bench.alternatives import registry
    from bench.alternatives.cloud import Cloud
    from bench.alternatives.registry import Pool

TASK_QUEUE = "alternative-signals"

ATTEMPT_SECONDS = 8
"""Six times the duration of a restart on this endpoint; after it, a dead worker is noticed."""


@workflow.defn(name="RivalWorkflow")
class BaselineWorkflow:
    """One workspace."""

    def __init__(self) -> None:
        self._queued: list[str] = []
        self._answered: list[str] = []
        self._last_beat: datetime | None = None

    @workflow.run
    async def run(self, queued: list[str], answered: list[str]) -> None:
        """Restart the box once per queued request."""
        self._queued = [*queued, *self._queued]
        self._answered = answered
        while True:
            await workflow.wait_condition(
                lambda: bool(self._queued) or workflow.info().is_continue_as_new_suggested()
            )
            if not self._queued:
                workflow.continue_as_new(args=[self._queued, self._answered])
            await workflow.execute_activity(
                "restart",
                workflow.info().workflow_id,
                start_to_close_timeout=timedelta(seconds=ATTEMPT_SECONDS),
                retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=200)),
            )
            self._answered.append(self._queued.pop(0))

    @workflow.signal
    def restart(self, request_id: str) -> None:
        """Queue a restart."""
        self._queued.append(request_id)

    @workflow.signal
    def beat(self) -> None:
        """Record a heartbeat."""
        self._last_beat = workflow.now()

    @workflow.query
    def answered(self) -> list[str]:
        """Return the requests that led to a restart."""
        return self._answered

    @workflow.query
    def last_beat(self) -> datetime | None:
        """Return the time of the last heartbeat, for the watchdog and for people."""
        return self._last_beat


class Restarts:
    """The activity."""

    def __init__(self, pool: Pool, cloud: Cloud) -> None:
        self._pool = pool
        self._cloud = cloud

    @activity.defn(name="restart")
    async def restart(self, workspace_id: str) -> str:
        """Replace the workspace's box. Returns its instance."""
        await asyncio.to_thread(self._cloud.deprovision, workspace_id, wait=False)
        async with self._pool.connection() as conn:
            await conn.execute(
                "INSERT INTO workspaces (workspace_id) VALUES (%s) ON CONFLICT DO NOTHING", [workspace_id]
            )
            await registry.revoke_tokens(conn, workspace_id)
        return (await asyncio.to_thread(self._cloud.provision, workspace_id)).instance_id


async def api(port: int) -> None:
    """The register API; heartbeats and restarts become signals."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    async with registry.opened(os.environ["DATABASE_URL"]) as pool:

        async def on_beat(workspace_id: str) -> None:
            await client.get_workflow_handle(workspace_id).signal("beat")

        async def restart(request: Request) -> JSONResponse:
            body = await request.json()
            await client.start_workflow(
                BaselineWorkflow.run,
                args=[[], []],
                id=body["workspace_id"],
                task_queue=TASK_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="restart",
                start_signal_args=[body["request_id"]],
            )
            return JSONResponse({"status": "scheduled"}, status_code=202)

        await registry.serve(pool, on_beat, port=port, more=(Route("/restart", restart, methods=["POST"]),))


async def work() -> None:
    """Run the worker until it is killed."""
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    async with registry.opened(os.environ["DATABASE_URL"]) as pool:
        restarts = Restarts(pool, Cloud(os.environ["PLATFORM_URL"]))
        async with Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[BaselineWorkflow],
            activities=[restarts.restart],
            workflow_runner=UnsandboxedWorkflowRunner(),  # as the product's workers do
        ):
            sys.stdout.write("worker.started\n")
            sys.stdout.flush()
            await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(api(int(sys.argv[2])) if sys.argv[1] == "api" else work())
