"""Group commit: what comes in while one transaction is under way goes into the next one, together.

Knows neither what is written nor where.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Generic, TypeVar

from store.db.pool import StoreUnavailable

T = TypeVar("T")
R = TypeVar("R")


class BatchFailed(StoreUnavailable):
    """The transaction that the item was part of, or would have been, came to nothing; see the cause."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """In place of a result; each caller raises an exception of its own for it."""

    cause: BaseException


class Batcher(Generic[T, R]):
    """One writer at a time takes all that waits, and hands it to `write`.

    `write` returns a result for each item, in their order, once they are durable. While it runs, others
    gather: the busier it is, the more of them share its next call. Whoever comes alone waits for nobody.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_batch: int) -> None:
        """`write` never gets more than `max_batch` items."""
        self._write = write
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R | _Failure]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """What `write` came to for this item; raises `BatchFailed`.

        A caller that is cancelled before its item was taken is left out; after that it is written, and
        nobody hears of it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R | _Failure] = loop.create_future()
        self._waiting.append((item, future))
        if self._writer is None:
            # Of nobody's context: what it logs is about no single request.
            self._writer = loop.create_task(self._write_all(), context=Context())
        outcome = await future
        if isinstance(outcome, _Failure):
            raise BatchFailed(str(outcome.cause)) from outcome.cause
        return outcome

    async def _write_all(self) -> None:
        batch: list[tuple[T, asyncio.Future[R | _Failure]]] = []
        try:
            while batch := self._next_batch():
                results = await self._write([item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    _resolve(future, result)
        except BaseException as error:
            # What kept these from being written keeps those behind them, too: nobody queues up for an outage.
            failure = _Failure(error)
            for _, future in (*batch, *self._waiting):
                _resolve(future, failure)
            self._waiting.clear()
            if not isinstance(error, StoreUnavailable):
                raise  # no caller's fault: the loop tells of it
        finally:
            self._writer = None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R | _Failure]]]:
        batch: list[tuple[T, asyncio.Future[R | _Failure]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # else its caller hung up
                batch.append((item, future))
        return batch


def _resolve(future: asyncio.Future[T], outcome: T) -> None:
    if not future.done():
        future.set_result(outcome)
