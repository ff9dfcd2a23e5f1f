"""Asking the record what a box did at the register API. Reads only; what follows is the lifecycle's."""

from datetime import timedelta

import structlog
from temporalio import activity

from activities.execution import execution
from activities.ports import Inquire, RegistrationSeen
from store.pool import Pool, connection
from store.registrations import read_seen

log = structlog.get_logger()


class Inquiries:
    """Needs PostgreSQL."""

    def __init__(self, *, pool: Pool, heartbeat_stale: timedelta) -> None:
        self._pool = pool
        self._heartbeat_stale = heartbeat_stale

    @activity.defn(name="inquire")
    async def inquire(self, request: Inquire) -> RegistrationSeen:
        """Read registration, last beat, and what the register calls were answered; changes nothing."""
        async with execution(request.workspace_id, request.generation), connection(self._pool) as conn:
            seen = await read_seen(
                conn,
                request.workspace_id,
                generation=request.generation,
                beat_fresh_for=self._heartbeat_stale,
            )
            await log.ainfo("registration.seen", registered=seen.registered_at is not None)
            return seen
