"""Workflow runs that Temporal's SDK cannot let go of: they are stuck at this worker until its process ends.

A run whose task took longer than the SDK allows (TMPRL1101, two seconds: also on a machine that was busy or
stopped) is interrupted wherever it is. Now and then it cannot be evicted after that: nobody works on it any
more, and the worker never ends by itself. The SDK says so in its log, and tries again for ever.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from temporalio.worker import Worker

EVICTION_TIMEOUT = timedelta(seconds=20)
"""Most evictions that fail succeed at the next attempts, two seconds apart."""

CHECK_INTERVAL = timedelta(seconds=1)


def is_stuck(worker: Worker) -> bool:
    """Whether the SDK is trying in vain to evict a run. Nothing of its public interface tells (1.35)."""
    workflows = worker._workflow_worker
    return workflows is not None and workflows._could_not_evict_count > 0


async def wait_until_stuck(workers: Sequence[Worker], *, tolerance: timedelta) -> None:
    """Return once one of them, or another, has been stuck for that long."""
    clock = asyncio.get_running_loop().time
    free_at = clock()
    while clock() - free_at < tolerance.total_seconds():
        await asyncio.sleep(CHECK_INTERVAL.total_seconds())
        if not any(map(is_stuck, workers)):
            free_at = clock()


async def shut_down(workers: Sequence[Worker], *, within: timedelta) -> bool:
    """Shut all of them down, side by side; False if one is not done in time, and won't ever be."""
    # One after the other, each would have a grace period of its own, while the next still takes work.
    ending = asyncio.gather(*(worker.shutdown() for worker in workers))
    done, _ = await asyncio.wait((ending,), timeout=within.total_seconds())
    for each in done:
        each.result()
    return bool(done)
