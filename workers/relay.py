"""Relays outbox rows from PostgreSQL to workflows as signals, and marks boxes with stale heartbeats.

Delivery is at least once and in any order; workflows recognize a repeated event by its time. Heartbeats
themselves stay in PostgreSQL.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

import psycopg
import structlog
from psycopg.sql import SQL, Identifier
from psycopg_pool import PoolTimeout
from temporalio.client import Client
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from store.db.pool import Pool
from store.delegation import agent_liveness
from store.delegation.agent_liveness import LivenessThresholds
from store.outbox import delegation_wakeups, workspace_events
from store.registration import heartbeats
from workflows.delegation.messages import workflow_id_of
from workflows.shared.names import DELEGATION_TYPE, DELEGATIONS_TASK_QUEUE
from workflows.workspace.workflow import WorkspaceWorkflow

SIGNAL_BATCH = 50
"""Signals that are sent concurrently, while their rows are locked."""

WAKEUP_ROWS = 1000
"""Rows in one batch; each delegation in the batch gets one signal."""

SIGNAL_TIMEOUT = timedelta(seconds=3)
"""A signal takes milliseconds. The row locks must be released before PostgreSQL ends the idle session."""

POLL_INTERVAL = timedelta(seconds=2)
"""Polling covers the notifications that were lost with a connection."""

PAUSE_AFTER_FAILURE = timedelta(seconds=1)

log: structlog.stdlib.BoundLogger = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """One relay per worker process; relays share the work by row locks."""

    pool: Pool
    client: Client
    database_url: str
    heartbeat_stale: timedelta
    thresholds: LivenessThresholds

    async def run(self) -> None:
        """Relay and scan until cancelled. Retries while PostgreSQL or Temporal is unavailable."""
        await asyncio.gather(
            _run_forever(
                "workspace_outbox.relay", lambda: self._relay("onebox_workspace_outbox", self.forward)
            ),
            _run_forever(
                "delegation_outbox.relay", lambda: self._relay("onebox_delegation_outbox", self.wake)
            ),
            _run_forever("heartbeats.scan", self._scan_heartbeats),
            return_exceptions=False,
        )

    async def _relay(self, channel: LiteralString, forward: Callable[[set[int]], Awaitable[bool]]) -> None:
        connection = await psycopg.AsyncConnection.connect(self.database_url, autocommit=True)
        async with connection:
            await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
            while True:
                refused = set[int]()
                while await forward(refused):
                    pass
                async for _ in connection.notifies(timeout=POLL_INTERVAL.total_seconds(), stop_after=1):
                    pass

    async def wake(self, refused: set[int]) -> bool:
        """Wake the workflows of one batch of delegation rows; return whether any row was delivered.

        Adds the IDs of undelivered rows to `refused`; the next call skips them.
        """
        async with self.pool.connection() as connection, connection.transaction():
            batch = await delegation_wakeups.claim_batch(connection, WAKEUP_ROWS, exclude=tuple(refused))
            names = list(dict.fromkeys(each.delegation_id for each in batch))[:SIGNAL_BATCH]
            sent = await asyncio.gather(*map(self._wake, names))
            delivered = {name for name, accepted in zip(names, sent, strict=True) if accepted}
            done = [each.event_id for each in batch if each.delegation_id in delivered]
            await delegation_wakeups.delete(connection, done)
        failed = set(names) - delivered
        refused.update(each.event_id for each in batch if each.delegation_id in failed)
        return bool(done)

    async def _wake(self, delegation_id: str) -> bool:
        """Signal the delegation's workflow; start it if it does not run and has not completed."""
        try:
            await self.client.start_workflow(
                DELEGATION_TYPE,
                id=workflow_id_of(delegation_id),
                task_queue=DELEGATIONS_TASK_QUEUE,
                start_signal="stirred",
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                static_summary="a delegation; its row is in the table delegations",
                rpc_timeout=SIGNAL_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return True
        except RPCError as error:
            log.warning("wakeup.refused", delegation=delegation_id, error=error.message)
            return False
        return True

    async def forward(self, refused: set[int]) -> bool:
        """Signal one batch of workspace events; return whether any was delivered.

        Adds the IDs of undelivered events to `refused`; the next call skips them.
        """
        async with self.pool.connection() as connection, connection.transaction():
            batch = await workspace_events.claim_batch(connection, SIGNAL_BATCH, exclude=tuple(refused))
            sent = await asyncio.gather(*(self._signal_workspace(event) for event in batch))
            done = [event.event_id for event, accepted in zip(batch, sent, strict=True) if accepted]
            await workspace_events.delete(connection, done)
        refused.update(event.event_id for event in batch if event.event_id not in done)
        return bool(done)

    async def _signal_workspace(self, event: workspace_events.WorkspaceEvent) -> bool:
        handle = self.client.get_workflow_handle(event.workspace_id)
        message: dict[str, object] = {
            "kind": event.kind,
            "generation": event.generation,
            "at": event.occurred_at,
        }
        if event.detail:
            message["detail"] = event.detail
        try:
            await handle.signal(WorkspaceWorkflow.box_changed, message, rpc_timeout=SIGNAL_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                # A workflow that starts later reads the event's effect from PostgreSQL.
                log.warning("event.without_workflow", workspace=event.workspace_id, kind=event.kind)
                return True
            log.warning("event.refused", workspace=event.workspace_id, kind=event.kind, error=error.message)
            return False
        log.info("event.relayed", workspace=event.workspace_id, generation=event.generation, kind=event.kind)
        return True

    async def _scan_heartbeats(self) -> None:
        pause = min(self.heartbeat_stale.total_seconds() / 10, 5.0)
        while True:
            async with self.pool.connection() as connection:
                stale = await heartbeats.mark_stale(connection, older_than=self.heartbeat_stale, limit=1000)
                unresponsive, recovered = await agent_liveness.mark_agents(connection, self.thresholds)
                await delegation_wakeups.enqueue_overdue(connection, after=self.thresholds.expires_after)
            if stale:
                log.warning("heartbeats.missed", count=stale)
            if unresponsive or recovered:
                log.warning("agents.responsiveness_changed", unresponsive=unresponsive, recovered=recovered)
            await asyncio.sleep(pause)


async def _run_forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (psycopg.Error, PoolTimeout, RPCError, OSError) as error:
            log.warning("loop.interrupted", loop=name, error=type(error).__name__)
            await asyncio.sleep(PAUSE_AFTER_FAILURE.total_seconds())
