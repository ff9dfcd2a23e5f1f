"""Group commit: items submitted while one transaction runs are written together in the next one."""

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
    """The item's transaction failed, or the one before it did; see the cause."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Stands for a result, so that each caller raises an exception object of its own."""

    cause: BaseException


class Batcher(Generic[T, R]):
    """Passes waiting items to `write` in batches, with one call at a time.

    `write` returns a result for each item, in their order, once they are durable. Items that arrive while it
    runs form the next batch, so batches grow with load. A single item is written immediately.
    """

    def __init__(self, write: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, max_batch: int) -> None:
        """`write` gets at most `max_batch` items per call."""
        self._write = write
        self._max_batch = max_batch
        self._waiting: deque[tuple[T, asyncio.Future[R | _Failure]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def submit(self, item: T) -> R:
        """The result of `write` for this item; raises `BatchFailed`.

        If the caller is cancelled while its item waits, the item is skipped. Later, it is written and its
        result is dropped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R | _Failure] = loop.create_future()
        self._waiting.append((item, future))
        if self._writer is None:
            # An empty context, because its log lines belong to no single request.
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
            # Fail the waiting items too: during an outage a queue would only delay their errors.
            failure = _Failure(error)
            for _, future in (*batch, *self._waiting):
                _resolve(future, failure)
            self._waiting.clear()
            if not isinstance(error, StoreUnavailable):
                raise  # a bug: the event loop logs it
        finally:
            self._writer = None

    def _next_batch(self) -> list[tuple[T, asyncio.Future[R | _Failure]]]:
        batch: list[tuple[T, asyncio.Future[R | _Failure]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # else its caller was cancelled
                batch.append((item, future))
        return batch


def _resolve(future: asyncio.Future[T], outcome: T) -> None:
    if not future.done():
        future.set_result(outcome)
