"""Taking transitions of boxes from PostgreSQL to their workflows, and noticing silence.

At least once, and in any order: the lifecycle knows a fact that it has by its time. No beat passes here.
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
from workflows.workspace.messages import DELEGATION_TYPE, DELEGATIONS_TASK_QUEUE
from workflows.workspace.workflow import WorkspaceWorkflow

SIGNAL_BATCH = 50
"""So many signals are sent at once, while their rows are locked."""

WAKEUP_ROWS = 1000
"""So many are read at once: each delegation among them is told once."""

SIGNAL_TIMEOUT = timedelta(seconds=3)
"""A signal takes milliseconds. The rows must be free again before the database gives the session up."""

POLL_INTERVAL = timedelta(seconds=2)
"""A notification comes at once; polling only covers those that were lost with a connection."""

PAUSE_AFTER_FAILURE = timedelta(seconds=1)

log: structlog.stdlib.BoundLogger = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """One per worker process; several share the work by locking rows."""

    pool: Pool
    client: Client
    database_url: str
    heartbeat_stale: timedelta
    patience: LivenessThresholds

    async def run(self) -> None:
        """Relay and scan until cancelled; failures of the database or the server are waited out."""
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
        """Have the workflows of one batch of delegations look again; whether to go on."""
        async with self.pool.connection() as connection, connection.transaction():
            batch = await delegation_wakeups.claim_delegation_events(
                connection, WAKEUP_ROWS, exclude=tuple(refused)
            )
            names = list(dict.fromkeys(each.delegation_id for each in batch))[:SIGNAL_BATCH]
            sent = await asyncio.gather(*map(self._wake, names))
            told = {name for name, taken in zip(names, sent, strict=True) if taken}
            done = [each.event_id for each in batch if each.delegation_id in told]
            await delegation_wakeups.delete_delegation_events(connection, done)
        untold = set(names) - told
        refused.update(each.event_id for each in batch if each.delegation_id in untold)
        return bool(done)

    async def _wake(self, delegation_id: str) -> bool:
        """Start its workflow, or wake it: one that was terminated, too, but none that has completed."""
        try:
            await self.client.start_workflow(
                DELEGATION_TYPE,
                id=delegation_id,
                task_queue=DELEGATIONS_TASK_QUEUE,
                start_signal="stirred",
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
                static_summary="a delegation; its row is in the ledger",
                rpc_timeout=SIGNAL_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return True
        except RPCError as error:
            log.warning("wakeup.refused", delegation=delegation_id, error=error.message)
            return False
        return True

    async def forward(self, refused: set[int]) -> bool:
        """Signal one batch of facts, without those that were refused before; whether to go on."""
        async with self.pool.connection() as connection, connection.transaction():
            batch = await workspace_events.claim_workspace_events(
                connection, SIGNAL_BATCH, exclude=tuple(refused)
            )
            sent = await asyncio.gather(*(self._signal_workspace(fact) for fact in batch))
            done = [fact.event_id for fact, taken in zip(batch, sent, strict=True) if taken]
            await workspace_events.delete_workspace_events(connection, done)
        refused.update(fact.event_id for fact in batch if fact.event_id not in done)
        return bool(done)

    async def _signal_workspace(self, fact: workspace_events.WorkspaceEvent) -> bool:
        handle = self.client.get_workflow_handle(fact.workspace_id)
        message: dict[str, object] = {
            "kind": fact.kind,
            "generation": fact.generation,
            "at": fact.occurred_at,
        }
        if fact.detail:
            message["detail"] = fact.detail
        try:
            await handle.signal(WorkspaceWorkflow.box_changed, message, rpc_timeout=SIGNAL_TIMEOUT)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                # A workflow that is started again reads all of this from the record.
                log.warning("event.without_workflow", workspace=fact.workspace_id, kind=fact.kind)
                return True
            log.warning("event.refused", workspace=fact.workspace_id, kind=fact.kind, error=error.message)
            return False
        log.info("event.relayed", workspace=fact.workspace_id, generation=fact.generation, kind=fact.kind)
        return True

    async def _scan_heartbeats(self) -> None:
        pause = min(self.heartbeat_stale.total_seconds() / 10, 5.0)
        while True:
            async with self.pool.connection() as connection:
                silent = await heartbeats.mark_stale(connection, older_than=self.heartbeat_stale, limit=1000)
                dead, well = await agent_liveness.mark_agents(connection, self.patience)
                await delegation_wakeups.wake_overdue(connection, after=self.patience.expires_after)
            if silent:
                log.warning("heartbeats.missed", count=silent)
            if dead or well:
                log.warning("agents.responsiveness_changed", unresponsive=dead, recovered=well)
            await asyncio.sleep(pause)


async def _run_forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (psycopg.Error, PoolTimeout, RPCError, OSError) as error:
            log.warning("loop.interrupted", loop=name, error=type(error).__name__)
            await asyncio.sleep(PAUSE_AFTER_FAILURE.total_seconds())
