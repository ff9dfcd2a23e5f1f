"""Fleet permits: automatic recreates start only if circuit breaker and concurrency limit allow it."""

import structlog
from temporalio import activity

from activities.fleet.health import FleetHealth
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.fleet import recreate_permits
from workflows.fleet.contract import FleetPermit, RequestFleetPermit
from workflows.fleet.rules import CAPACITY_RETRY_AFTER, FREEZE_DURATION

log = structlog.get_logger()


class Permits:
    """Needs PostgreSQL and the fleet's health."""

    def __init__(self, *, pool: Pool, health: FleetHealth) -> None:
        self._pool = pool
        self._health = health

    @activity.defn(name="request_fleet_permit")
    async def request_fleet_permit(self, request: RequestFleetPermit) -> FleetPermit:
        """Grant or refuse a permit. A retry gets the permit that was granted before."""
        async with activity_context(request.workspace_id):
            permit = await self._decide(request)
            await log.ainfo(
                "fleet.permit_decided", granted=permit.granted, frozen=permit.frozen, reason=permit.reason
            )
            return permit

    async def _decide(self, request: RequestFleetPermit) -> FleetPermit:
        ec2_error = await self._health.ec2_error()
        if ec2_error is not None:
            return FleetPermit(granted=False, frozen=True, reason=ec2_error, retry_after=FREEZE_DURATION)
        async with connection(self._pool) as conn, conn.transaction():
            await recreate_permits.lock(conn)
            counts, decision = await self._health.evaluate(conn, exclude=request.workspace_id)
            if decision.frozen is not None:
                return FleetPermit(
                    granted=False, frozen=True, reason=decision.frozen, retry_after=FREEZE_DURATION
                )
            if decision.free == 0:
                reason = f"{counts.recreating} automatic recreates are in progress, the maximum at once"
                return FleetPermit(granted=False, reason=reason, retry_after=CAPACITY_RETRY_AFTER)
            await recreate_permits.grant_permit(conn, request.workspace_id, generation=request.generation)
            return FleetPermit(granted=True)
