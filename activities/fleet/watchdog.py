"""The watchdog: finds boxes that should be replaced, and signals their workflows to recreate them."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from temporalio import activity
from temporalio.service import RPCError

from activities.fleet.health import FleetHealth
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.fleet import fleet_snapshot, watchdog_queries
from store.fleet.watchdog_queries import Finding, WatchdogThresholds
from workflows.fleet.contract import Watch, WatchdogReport
from workflows.shared.names import TASK_QUEUE, WORKFLOW_TYPE
from workflows.workspace.backoff import REQUESTER

WATCHDOG = "watchdog"
"""`requested_by` of the watchdog's requests."""

SIGNAL_TIMEOUT = timedelta(seconds=5)

_REASONS = {
    "stale": "its box has sent no heartbeats",
    "credential_lost": "its box has sent heartbeats without a valid token",
    "not_processing": "its agent has not processed its work",
    "unregistered": "its box has not registered",
}

log = structlog.get_logger()


class Watchdog:
    """Needs PostgreSQL, the fleet's health, and the worker's Temporal client."""

    def __init__(self, *, pool: Pool, health: FleetHealth, thresholds: WatchdogThresholds) -> None:
        self._pool = pool
        self._health = health
        self._thresholds = thresholds

    @activity.defn(name="watch")
    async def watch(self, request: Watch) -> WatchdogReport:  # noqa: ARG002 - one request type for each activity
        """Request recreates: once for each cause, and never more than the fleet's limit allows."""
        async with activity_context(WATCHDOG):
            report, findings = await self._find()
            sent = await asyncio.gather(*map(_request_recreate, findings))
            await log.ainfo(
                "watchdog.completed", frozen=report.frozen, requested=sum(sent), waiting=report.waiting
            )
            return report

    async def _find(self) -> tuple[WatchdogReport, Sequence[Finding]]:
        ec2_error = await self._health.ec2_error()
        async with connection(self._pool) as conn, conn.transaction():
            counts, decision = await self._health.evaluate(conn)
            frozen, findings = ec2_error or decision.frozen, list[Finding]()
            if frozen is None and decision.free:
                findings = await watchdog_queries.find_due(
                    conn, thresholds=self._thresholds, lifecycle=REQUESTER, limit=decision.free
                )
                await watchdog_queries.record_requests(conn, findings)
            await fleet_snapshot.record_watchdog_run(conn, frozen_reason=frozen)
        report = WatchdogReport(
            running=counts.running,
            stale=counts.stale,
            recreating=counts.recreating,
            max_concurrent=decision.max_concurrent,
            frozen=frozen,
            requested=tuple(each.workspace_id for each in findings),
            waiting=findings[0].total - len(findings) if findings else 0,
        )
        return report, findings


async def _request_recreate(finding: Finding) -> bool:
    """Signal the workflow, and start it if it does not run. Returns whether Temporal accepted it."""
    message = {
        "reason": f"{_REASONS[finding.cause]} since {finding.since:%Y-%m-%d %H:%M:%S} UTC",
        "requested_by": WATCHDOG,
        "observed_generation": finding.generation,
        "request_id": finding.request_id,
    }
    try:
        await activity.client().start_workflow(
            WORKFLOW_TYPE,
            id=finding.workspace_id,
            task_queue=TASK_QUEUE,
            start_signal="recreate",
            start_signal_args=[message],
            static_summary=f"workspace {finding.workspace_id}",
            rpc_timeout=SIGNAL_TIMEOUT,
        )
    except RPCError as error:
        # The request is recorded. Without an outcome it is sent again after `REQUEST_RETRY_AFTER`.
        await log.awarning("watchdog.signal_failed", workspace=finding.workspace_id, error=error.message)
        return False
    await log.ainfo("watchdog.requested", workspace=finding.workspace_id, cause=finding.cause)
    return True
