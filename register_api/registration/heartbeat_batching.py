"""Writes heartbeats of known boxes in batches, one transaction each.

A heartbeat that needs more than an update, or whose batch fails, is left to the caller to write on its own.
"""

from collections.abc import Sequence

import psycopg
import structlog

from register_api.auth.credentials import Credentials
from register_api.auth.priority_pool import PriorityPool
from register_api.registration.group_commit import Batcher
from register_api.schema.request_models import HeartbeatBody
from store.registration import heartbeat_batch
from store.registration.caller_lookup import CallerRecord
from store.registration.heartbeat_batch import HeartbeatInput

MAX_BATCH = 200
"""A statement of a few milliseconds, so that the next batch does not wait long."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HeartbeatBatcher:
    """The heartbeat batcher of one process."""

    def __init__(self, pool: PriorityPool) -> None:
        self._pool = pool
        self._batcher = Batcher(self._write, max_batch=MAX_BATCH)

    async def record(self, body: HeartbeatBody, credentials: Credentials) -> CallerRecord | None:
        """The caller's record if the heartbeat was counted and is durable; None if nothing was written.

        Only callers with a recently live token share a batch, so unknown callers cannot delay them. Raises
        `StoreUnavailable`.
        """
        sha256 = credentials.sha256
        if sha256 is None or not self._pool.is_known(sha256):
            return None
        heartbeat = HeartbeatInput(
            workspace_id=body.workspace_id,
            sha256=sha256,
            secret_generation=credentials.secret_generation,
            heartbeat=body.heartbeat(),
        )
        return await self._batcher.submit(heartbeat)

    async def _write(self, heartbeats: Sequence[HeartbeatInput]) -> Sequence[CallerRecord | None]:
        async with self._pool.shared_connection() as conn:
            try:
                return await heartbeat_batch.record_batch(conn, heartbeats)
            except psycopg.OperationalError:
                raise  # the database is unavailable, also for each heartbeat alone
            except psycopg.Error as error:
                # One heartbeat is at fault. Written on their own, only that one fails.
                _log.warning("heartbeat.batch_failed", heartbeats=len(heartbeats), error=type(error).__name__)
                return [None] * len(heartbeats)
