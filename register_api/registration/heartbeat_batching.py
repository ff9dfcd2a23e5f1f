"""Beats of known boxes, taken in together: in one transaction what came while the one before was under way.

Judges none of them. What is not plain, or fails with the others, is left to be taken in alone.
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
"""A statement of a few milliseconds, so that those who come just after it began don't wait for long."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HeartbeatBatcher:
    """The way in that all plain heartbeats of one process share."""

    def __init__(self, pool: PriorityPool) -> None:
        self._pool = pool
        self._batcher = Batcher(self._write, max_batch=MAX_BATCH)

    async def take_in(self, body: HeartbeatBody, credentials: Credentials) -> CallerRecord | None:
        """What the record says, if the beat is counted now, durably; None: nothing was written.

        Only callers with a token that was live a moment ago share: nobody else makes them wait. Raises
        `StoreUnavailable`.
        """
        sha256 = credentials.sha256
        if sha256 is None or not self._pool.is_known(sha256):
            return None
        presented = HeartbeatInput(
            workspace_id=body.workspace_id,
            sha256=sha256,
            secret_generation=credentials.secret_generation,
            beat=body.heartbeat(),
        )
        return await self._batcher.submit(presented)

    async def _write(self, heartbeats: Sequence[HeartbeatInput]) -> Sequence[CallerRecord | None]:
        async with self._pool.shared_connection() as conn:
            try:
                return await heartbeat_batch.record_batch(conn, heartbeats)
            except psycopg.OperationalError:
                raise  # the database is away: so it is for each of them
            except psycopg.Error as error:
                # One of them, and nobody knows which: alone, it fails alone.
                _log.warning("heartbeat.batch_failed", heartbeats=len(heartbeats), error=type(error).__name__)
                return [None] * len(heartbeats)
