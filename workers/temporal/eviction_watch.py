"""Detects workflow runs that the SDK cannot evict from its cache: no other worker can continue them.

The SDK interrupts a run whose task exceeds two seconds (TMPRL1101), also on a busy or suspended machine.
Sometimes it then fails to evict the run, retries forever, and `Worker.shutdown` never returns.

Remove when the SDK's shutdown returns despite such a run; a test of that behaviour fails then.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio.worker import Worker

EVICTION_TIMEOUT = timedelta(seconds=20)
"""The SDK retries a failed eviction every two seconds, and most retries succeed."""

CHECK_INTERVAL = timedelta(seconds=1)


def is_stuck(worker: Worker) -> bool:
    """Whether the SDK fails to evict a run. The SDK (1.35) has no public API for it."""
    workflows = worker._workflow_worker
    return workflows is not None and workflows._could_not_evict_count > 0


async def wait_until_stuck(workers: Sequence[Worker], *, tolerance: timedelta) -> None:
    """Return when at least one worker has been stuck at each check for `tolerance`."""
    clock = asyncio.get_running_loop().time
    free_at = clock()
    while clock() - free_at < tolerance.total_seconds():
        await asyncio.sleep(CHECK_INTERVAL.total_seconds())
        if not any(map(is_stuck, workers)):
            free_at = clock()


async def shut_down(workers: Sequence[Worker], *, within: timedelta) -> bool:
    """Shut all workers down concurrently; return False if one does not finish in time."""
    # In sequence, each worker would use its own grace period while the next one still accepts tasks.
    ending = asyncio.gather(*(worker.shutdown() for worker in workers))
    done, _ = await asyncio.wait((ending,), timeout=within.total_seconds())
    for each in done:
        each.result()
    return bool(done)
