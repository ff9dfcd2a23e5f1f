"""Who gets to the database first: callers that showed who they are, before those that did not yet.

Grants nothing and refuses nobody for good: a caller that finds no room is asked to come again. What it is
told does not depend on the record.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from register_api.auth.credentials import Credentials
from store.db.pool import Connection, Pool, StoreUnavailable, connection

KNOWN_CALLER_TTL_SECONDS = 300.0
"""Ten beats: a box that beats is known all the time."""

KNOWN_TOKENS_LIMIT = 50_000
"""Of one process; a fleet of 10,000 has two live tokens a box at the most. 100 bytes each."""

UNKNOWN_POOL_DIVISOR = 4
"""Of the pool's connections, one in so many serves callers that are not known."""

UNKNOWN_QUEUE_LIMIT = 256
"""More of them at once are a flood; the newest of the largest crowd goes first."""

QUEUE_TIMEOUT_SECONDS = 2.0
"""As long as for a lock. Whoever waits longer is told to come again."""


class PoolSaturated(StoreUnavailable):
    """No room now; the same call may succeed later."""


class FairQueue:
    """So many at once. Sources take turns, so that a flood from one of them delays itself."""

    def __init__(
        self, slots: int, *, queue_limit: int = UNKNOWN_QUEUE_LIMIT, timeout: float = QUEUE_TIMEOUT_SECONDS
    ) -> None:
        self._free = slots
        self._queue_limit = queue_limit
        self._timeout = timeout
        self._queues: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def slot(self, source: str) -> AsyncIterator[None]:
        """A place for the block; raises `PoolSaturated`."""
        if self._free:
            self._free -= 1
        else:
            await self._acquire(source)
        try:
            yield
        finally:
            self._release()

    async def _acquire(self, source: str) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(source, deque()).append(place)
        if sum(map(len, self._queues.values())) > self._queue_limit:
            last = max(self._queues.values(), key=len)[-1]
            self._remove(last)
            if not last.done():  # it may have given up by itself, and not have left yet
                last.set_exception(PoolSaturated("too many callers at once"))
        acquired = False
        try:
            async with asyncio.timeout(self._timeout):
                await place
            acquired = True
        except TimeoutError:
            raise PoolSaturated("no room for this caller in time") from None
        finally:
            self._remove(place)
            if not acquired and place.done() and not place.cancelled() and place.exception() is None:
                self._release()  # the place came together with the timeout, or with the caller's hanging up

    def _remove(self, place: asyncio.Future[None]) -> None:
        for source, queue in self._queues.items():
            if place in queue:
                queue.remove(place)
                if not queue:
                    del self._queues[source]
                return

    def _release(self) -> None:
        while self._queues:
            source, queue = self._queues.popitem(last=False)
            place = queue.popleft()
            if queue:
                self._queues[source] = queue  # behind the others
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class PriorityPool:
    """The way to the pool, and the tokens that were live a moment ago."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._unknown_callers = FairQueue(max(1, pool.max_size // UNKNOWN_POOL_DIVISOR))
        self._known: OrderedDict[bytes, float] = OrderedDict()

    @asynccontextmanager
    async def connection(self, credentials: Credentials) -> AsyncIterator[Connection]:
        """A connection for the block: at once for who is known, in turn for who is not.

        A bootstrap secret is verified without the database, a token was live a moment ago. Raises
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
        """A connection for what is done at once for many that are known. Raises `StoreUnavailable`."""
        async with connection(self._pool) as conn:
            yield conn

    def mark_known(self, sha256: bytes | None) -> None:
        """The token with this hash was live just now."""
        if sha256 is None:
            return
        self._known[sha256] = asyncio.get_running_loop().time() + KNOWN_CALLER_TTL_SECONDS
        self._known.move_to_end(sha256)
        if len(self._known) > KNOWN_TOKENS_LIMIT:
            self._known.popitem(last=False)

    def is_known(self, sha256: bytes | None) -> bool:
        """Whether the token with this hash was live a moment ago."""
        return sha256 is not None and self._known.get(sha256, 0.0) > asyncio.get_running_loop().time()
