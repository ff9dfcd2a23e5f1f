"""Asking the record what a box did at the register API. Reads only; what follows is the lifecycle's."""

from datetime import timedelta

import structlog
from temporalio import activity

from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.registration.register_reads import read_registration
from workflows.workspace.contract import CheckRegistration, RegistrationStatus

log = structlog.get_logger()


class RegistrationProbe:
    """Needs PostgreSQL."""

    def __init__(self, *, pool: Pool, heartbeat_stale: timedelta) -> None:
        self._pool = pool
        self._heartbeat_stale = heartbeat_stale

    @activity.defn(name="check_registration")
    async def check_registration(self, request: CheckRegistration) -> RegistrationStatus:
        """Read registration, last beat, and what the register calls were answered; changes nothing."""
        async with activity_context(request.workspace_id, request.generation), connection(self._pool) as conn:
            seen = await read_registration(
                conn,
                request.workspace_id,
                generation=request.generation,
                heartbeat_fresh_for=self._heartbeat_stale,
            )
            await log.ainfo("registration.seen", registered=seen.registered_at is not None)
            return seen
