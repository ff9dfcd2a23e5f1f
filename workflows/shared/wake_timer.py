"""One timer of a workflow, replaced when its time changes."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from temporalio import workflow


class WakeTimer:
    """Calls `wake` at the time that was set last."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._at: datetime | None = None
        self._task: asyncio.Task[None] | None = None

    def set(self, at: datetime | None, *, start: bool, summary: str) -> None:
        """Wake at this time, or never. A timer that runs for the same time goes on, whatever `start` says."""
        if self._task is not None and self._at == at and not self._task.done():
            return
        if self._task is not None:
            self._task.cancel()
        self._at, self._task = at, None
        if at is not None and start:
            self._task = asyncio.create_task(self._sleep_until(at, summary))

    async def _sleep_until(self, at: datetime, summary: str) -> None:
        await workflow.sleep(max(at - workflow.now(), timedelta()), summary=summary)
        self._wake()
