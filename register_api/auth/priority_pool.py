"""Database connections by priority: known callers get one at once, unknown callers queue for a small share.

It authorizes nobody. A caller without a connection gets a 503 and may retry; that response does not depend
on the record.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from register_api.auth.credentials import Credentials
from store.db.pool import Connection, Pool, StoreUnavailable, connection

KNOWN_CALLER_TTL_SECONDS = 300.0
"""Ten heartbeat intervals: a box that sends heartbeats stays known."""

KNOWN_TOKENS_LIMIT = 50_000
"""For one process, at 100 bytes each. A fleet of 10,000 boxes has at most 20,000 live tokens."""

UNKNOWN_POOL_DIVISOR = 4
"""Unknown callers share one in four of the pool's connections."""

UNKNOWN_QUEUE_LIMIT = 256
"""Queued unknown callers. Beyond it, the newest caller of the source with the most callers is dropped."""

QUEUE_TIMEOUT_SECONDS = 2.0
"""The same as the lock timeout. A caller that waits longer gets a 503."""


class PoolSaturated(StoreUnavailable):
    """No connection is free for this caller; the same call may succeed later."""


class FairQueue:
    """A semaphore with a queue per source, served round-robin: a flood delays only its own source."""

    def __init__(
        self, slots: int, *, queue_limit: int = UNKNOWN_QUEUE_LIMIT, timeout: float = QUEUE_TIMEOUT_SECONDS
    ) -> None:
        self._free = slots
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, source: str) -> AsyncIterator[None]:
        """Hold a slot for the block; raises `PoolSaturated`."""
        if self._free:
            self._free -= 1
        else:
            await self._acquire(source)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, source: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(source, deque()).append(turn)
        if sum(map(len, self._queues.values())) > self._queue_limit:
            last = max(self._queues.values(), key=len)[-1]
            self._remove(last)
            if not last.done():  # else it has timed out, and has not left the queue yet
                last.set_exception(PoolSaturated("too many callers at once"))
        acquired = False
        try:
            async with asyncio.timeout(self._timeout):
                await turn
            acquired = True
        except TimeoutError:
            raise PoolSaturated("no connection for this caller in time") from None
        finally:
            self._remove(turn)
            if not acquired and turn.done() and not turn.cancelled() and turn.exception() is None:
                self._release()  # granted just as the caller timed out or was cancelled

    def _remove(self, turn: asyncio.Future[None]) -> None:
        for source, queue in self._queues.items():
            if turn in queue:
                queue.remove(turn)
                if not queue:
                    del self._queues[source]
                return

    def _release(self) -> None:
        while self._queues:
            source, queue = self._queues.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._queues[source] = queue  # to the back of the line
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class PriorityPool:
    """The connection pool, and a cache of tokens that were recently live."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._unknown_callers = FairQueue(max(1, pool.max_size // UNKNOWN_POOL_DIVISOR))
        self._known: OrderedDict[bytes, float] = OrderedDict()

    @asynccontextmanager
    async def connection(self, credentials: Credentials) -> AsyncIterator[Connection]:
        """A connection for the block: at once for a known caller, through the queue for an unknown one.

        A caller is known by a bootstrap secret, which needs no database, or by a recently live token. Raises
        `StoreUnavailable`.
        """
        if credentials.secrets or self.is_known(credentials.sha256):
            async with connection(self._pool) as conn:
                yield conn
        else:
            async with self._unknown_callers.slot(str(credentials.source)), connection(self._pool) as conn:
                yield conn

    @asynccontextmanager
    async def shared_connection(self) -> AsyncIterator[Connection]:
        """A connection for work on behalf of many known callers. Raises `StoreUnavailable`."""
        async with connection(self._pool) as conn:
            yield conn

    def mark_known(self, sha256: bytes | None) -> None:
        """Remember that the token with this hash is live."""
        if sha256 is None:
            return
        self._known[sha256] = asyncio.get_running_loop().time() + KNOWN_CALLER_TTL_SECONDS
        self._known.move_to_end(sha256)
        if len(self._known) > KNOWN_TOKENS_LIMIT:
            self._known.popitem(last=False)

    def is_known(self, sha256: bytes | None) -> bool:
        """Whether the token with this hash was recently live."""
        return sha256 is not None and self._known.get(sha256, 0.0) > asyncio.get_running_loop().time()
