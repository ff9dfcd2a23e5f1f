"""Leave for automatic recreates, and the watchdog's round: what is wrong, and whom to ask for another box.

Whether the fleet allows it is judged in `workflows.fleet.rules`; what becomes of a request, by its workflow.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import BotoCoreError, ClientError
from temporalio import activity
from temporalio.service import RPCError

from activities.aws import errors
from activities.aws.client import Aws
from activities.shared.activity_context import activity_context
from store.db.pool import Connection, Pool, connection
from store.fleet import fleet_snapshot, recreate_permits, watchdog_queries
from store.fleet.watchdog_queries import Finding, WatchdogThresholds
from workflows.fleet.rules import (
    CAPACITY_RETRY_AFTER,
    FREEZE_DURATION,
    FleetCounts,
    FleetDecision,
    FleetPolicy,
    decide,
)
from workflows.workspace.contract import FleetPermit, RequestFleetPermit, Watch, WatchdogReport
from workflows.workspace.messages import TASK_QUEUE, WORKFLOW_TYPE
from workflows.workspace.self_requests import REQUESTER

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

WATCHDOG = "watchdog"
"""Who asks."""

EC2_CHECK_TTL = timedelta(seconds=5)
"""A look at EC2 serves all that ask within it: a thousand must not become a thousand calls."""

SIGNAL_TIMEOUT = timedelta(seconds=5)

_REASONS = {
    "stale": "its box is silent",
    "credential_lost": "its box beats without a live token",
    "not_processing": "its agent does not process what it is given",
    "unregistered": "its box has not registered in time",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetConfig:
    """What the worker's settings say of the fleet."""

    policy: FleetPolicy = field(default_factory=FleetPolicy)
    thresholds: WatchdogThresholds = field(default_factory=WatchdogThresholds)


class Fleet:
    """Needs PostgreSQL, and EC2 to see whether it can be read."""

    def __init__(self, *, aws: Aws, pool: Pool, config: FleetConfig) -> None:
        self._aws = aws
        self._pool = pool
        self._config = config
        self._check_lock = asyncio.Lock()
        self._last_check: tuple[float, str | None] | None = None

    @activity.defn(name="request_fleet_permit")
    async def request_fleet_permit(self, request: RequestFleetPermit) -> FleetPermit:
        """Judge the fleet, and take one of the places of automatic recreates; a retry finds its own."""
        workspace_id = request.workspace_id
        async with activity_context(workspace_id):
            permit = await self._request_permit(request)
            await log.ainfo(
                "fleet.permit_decided", granted=permit.granted, frozen=permit.frozen, reason=permit.reason
            )
            return permit

    async def frozen(self) -> str | None:
        """Why a rollout begins nothing new now; None if it may. Places are for automatic requests only."""
        unreadable = await self._ec2_error()
        if unreadable is not None:
            return unreadable
        async with connection(self._pool) as conn:
            _, verdict = await self._evaluate(conn)
            return verdict.frozen

    async def _request_permit(self, request: RequestFleetPermit) -> FleetPermit:
        unreadable = await self._ec2_error()
        if unreadable is not None:
            return FleetPermit(granted=False, frozen=True, reason=unreadable, retry_after=FREEZE_DURATION)
        async with connection(self._pool) as conn, conn.transaction():
            await recreate_permits.lock(conn)
            figures, verdict = await self._evaluate(conn, exclude=request.workspace_id)
            if verdict.frozen is not None:
                return FleetPermit(
                    granted=False, frozen=True, reason=verdict.frozen, retry_after=FREEZE_DURATION
                )
            if verdict.free == 0:
                reason = f"{figures.recreating} automatic recreates are under way, as many as may be at once"
                return FleetPermit(granted=False, reason=reason, retry_after=CAPACITY_RETRY_AFTER)
            await recreate_permits.grant_permit(conn, request.workspace_id, generation=request.generation)
            return FleetPermit(granted=True)

    @activity.defn(name="watch")
    async def watch(self, request: Watch) -> WatchdogReport:  # noqa: ARG002 - one request type for each activity
        """Find what is wrong, and ask for other boxes: once for each cause, never more than may begin."""
        async with activity_context(WATCHDOG):
            watched, findings = await self._run_round()
            asked = await asyncio.gather(*map(_request_recreate, findings))
            await log.ainfo(
                "watchdog.completed", frozen=watched.frozen, requested=sum(asked), waiting=watched.waiting
            )
            return watched

    async def _run_round(self) -> tuple[WatchdogReport, Sequence[Finding]]:
        unreadable = await self._ec2_error()
        async with connection(self._pool) as conn, conn.transaction():
            figures, verdict = await self._evaluate(conn)
            frozen, findings = unreadable or verdict.frozen, list[Finding]()
            if frozen is None and verdict.free:
                findings = await watchdog_queries.find_due(
                    conn, thresholds=self._config.thresholds, lifecycle=REQUESTER, limit=verdict.free
                )
                await watchdog_queries.record_requests(conn, findings)
            await fleet_snapshot.record_watchdog_run(conn, frozen_reason=frozen)
        watched = WatchdogReport(
            running=figures.running,
            stale=figures.stale,
            recreating=figures.recreating,
            max_concurrent=verdict.max_concurrent,
            frozen=frozen,
            requested=tuple(each.workspace_id for each in findings),
            waiting=findings[0].total - len(findings) if findings else 0,
        )
        return watched, findings

    async def _evaluate(
        self, conn: Connection, *, exclude: str | None = None
    ) -> tuple[FleetCounts, FleetDecision]:
        """Count and judge; whoever sees too many stale at once remembers it for all."""
        figures = await recreate_permits.read_figures(conn, exclude=exclude)
        verdict = decide(figures, self._config.policy)
        if verdict.fleet_stale:
            await recreate_permits.record_fleet_stale(conn)
        return figures, verdict

    async def _ec2_error(self) -> str | None:
        """Why EC2 cannot be read; None if it can. Asked once for all that want to know within seconds."""
        async with self._check_lock:
            now = asyncio.get_running_loop().time()
            if self._last_check is None or now - self._last_check[0] > EC2_CHECK_TTL.total_seconds():
                self._last_check = (now, await self._check_ec2())
            return self._last_check[1]

    async def _check_ec2(self) -> str | None:
        try:
            await self._aws.call(_describe_some, self._aws.ec2)
        except ClientError as error:
            return f"EC2 cannot be read: {errors.code_of(error)}"
        except BotoCoreError as error:
            return f"EC2 cannot be reached: {type(error).__name__}"
        return None


async def _request_recreate(finding: Finding) -> bool:
    """Signal the workflow, or start it: one that was terminated resumes the generation on the record."""
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
        # Noted as asked for: without an outcome it is asked for again.
        await log.awarning("watchdog.refused", workspace=finding.workspace_id, error=error.message)
        return False
    await log.ainfo("watchdog.requested", workspace=finding.workspace_id, cause=finding.cause)
    return True


def _describe_some(ec2: "EC2Client") -> None:
    ec2.describe_instances(MaxResults=5)
