"""Reads the registration of a generation's box from PostgreSQL."""

from datetime import timedelta

import structlog
from temporalio import activity

from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.registration.register_reads import read_registration
from workflows.workspace.contract import CheckRegistration
from workflows.workspace.diagnosis import RegistrationStatus

log = structlog.get_logger()


class RegistrationProbe:
    """Needs PostgreSQL."""

    def __init__(self, *, pool: Pool, heartbeat_stale: timedelta) -> None:
        self._pool = pool
        self._heartbeat_stale = heartbeat_stale

    @activity.defn(name="check_registration")
    async def check_registration(self, request: CheckRegistration) -> RegistrationStatus:
        """Read the registration, the last heartbeat, and the results of register calls."""
        async with activity_context(request.workspace_id, request.generation), connection(self._pool) as conn:
            status = await read_registration(
                conn,
                request.workspace_id,
                generation=request.generation,
                heartbeat_fresh_for=self._heartbeat_stale,
            )
            await log.ainfo("registration.checked", registered=status.registered_at is not None)
            return status
