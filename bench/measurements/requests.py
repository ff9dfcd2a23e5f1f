"""Recreate requests decided and recorded per second, compared with a workflow that only counts."""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from bench.baselines.signal_ceiling import STARTED, TASK_QUEUE, CountingWorkflow
from bench.load.boxes import simulated_boxes
from bench.parts import events
from bench.parts.results import Comparison, Goal, Line, Profile, Result
from bench.parts.size import Size
from bench.parts.workspaces import bring_online
from devstack.console import Console, connected
from devstack.processes import POLL_SECONDS, Program
from devstack.stack import PARTS, Stack

GOAL_SHARE = 0.8
"""The goal."""

MANY = 100
"""Number of workspaces requested concurrently."""

SENDERS = 32
"""Concurrent signals."""

SETTINGS = {
    "WATCHDOG_INTERVAL_SECONDS": "3600",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "86400",
    "REPAIR_INTERVAL_SECONDS": "86400",
    "EC2_MUTATIONS_PER_SECOND": "1000",
    "LOG_FORMAT": "json",
}


@dataclass(slots=True)
class Measured:
    """Requests per second per round, of Onebox and of the counting workflow."""

    one: list[tuple[float, float]] = field(default_factory=list)
    many: list[tuple[float, float]] = field(default_factory=list)
    growth: list[tuple[int, float]] = field(default_factory=list)
    waits: list[tuple[str, float]] = field(default_factory=list)


def run(size: Size) -> Result:
    """Run the benchmark."""
    with (
        Stack(
            free_ports=True,
            fsync=True,
            parts=[part for part in PARTS if part != "boxes"],
            settings=SETTINGS,
            pending_seconds=0,
            terminating_seconds=0,
        ) as stack,
        _counting(stack),
    ):
        return _result(size, asyncio.run(_measured(size, stack)))


@contextmanager
def _counting(stack: Stack) -> Iterator[None]:
    """Start the counting workflow's worker."""
    program = Program(
        "counting",
        [sys.executable, "-m", "bench.baselines.signal_ceiling"],
        log=stack.log("counting"),
        environment=stack.environment,
        ready=lambda it: STARTED in it.log_text(),
    )
    program.start()
    try:
        yield
    finally:
        program.stop()


async def _measured(size: Size, stack: Stack) -> Measured:
    it = Measured()
    many = min(MANY, size.signals)
    async with connected(stack) as console, simulated_boxes(stack):
        workspaces = [f"requested-{number}" for number in range(many)]
        counters = [f"counting-{number}" for number in range(many)]
        await _begin(console, workspaces, counters)
        began = time.time()
        for number in range(size.rounds):
            pairs = (workspaces[:1], counters[:1], it.one), (workspaces, counters, it.many)
            for ours, theirs, rounds in pairs:
                rounds.append(
                    (
                        await _decided(console, ours, size.signals, f"{number}-{len(ours)}"),
                        await _counted(console, theirs, size.signals),
                    )
                )
        history = await console.workflow(workspaces[0]).fetch_history()
        it.waits = events.spent(history.events, since=began)
        for some in sorted({1, max(1, many // 10), many}):
            it.growth.append(
                (some, await _decided(console, workspaces[:some], size.signals, f"grown-{some}"))
            )
    return it


async def _begin(console: Console, workspaces: Sequence[str], counters: Sequence[str]) -> None:
    for name in counters:
        await console.client.start_workflow(CountingWorkflow.run, id=name, task_queue=TASK_QUEUE)
    await bring_online(console, workspaces)


async def _decided(console: Console, workspaces: Sequence[str], number: int, about: str) -> float:
    """Send requests and wait until each outcome is in PostgreSQL. Returns requests per second.

    The requests name a past generation, as most requests of a storm do.
    """
    prefix = f"{about}-{uuid4().hex[:6]}"
    began = time.perf_counter()

    async def send(each: int) -> None:
        await console.signal(
            workspaces[each % len(workspaces)],
            requested_by="auto-recovery",
            reason="agent offline",
            observed_generation=0,
            request_id=f"{prefix}-{each}",
        )

    await _all(send, number)
    while True:
        [row] = await console.rows(
            "SELECT count(*) AS n FROM requests WHERE request_id LIKE %s", f"{prefix}-%"
        )
        if row["n"] == number:
            return number / (time.perf_counter() - began)
        await asyncio.sleep(POLL_SECONDS)


async def _counted(console: Console, counters: Sequence[str], number: int) -> float:
    """Send the same number of signals and wait until all are counted."""
    handles = [console.client.get_workflow_handle_for(CountingWorkflow.run, name) for name in counters]
    before = sum([await handle.query(CountingWorkflow.counted) for handle in handles])
    began = time.perf_counter()

    async def send(each: int) -> None:
        payload: dict[str, str | int] = {
            "requested_by": "auto-recovery",
            "reason": "agent offline",
            "observed_generation": 0,
            "request_id": f"counted-{each}",
        }
        await handles[each % len(handles)].signal(CountingWorkflow.recreate, payload)

    await _all(send, number)
    # A query sees every signal accepted before it.
    seen = await asyncio.gather(*(handle.query(CountingWorkflow.counted) for handle in handles))
    took = time.perf_counter() - began
    if sum(seen) - before != number:
        raise AssertionError(f"{sum(seen) - before} of {number} signals were counted")
    return number / took


async def _all(send: Callable[[int], Coroutine[None, None, None]], number: int) -> None:
    """Send them, with limited concurrency."""
    numbers = iter(range(number))

    async def sender() -> None:
        for each in numbers:
            await send(each)

    await asyncio.gather(*(sender() for _ in range(min(SENDERS, number))))


def _result(size: Size, it: Measured) -> Result:
    many = it.growth[-1][0]
    total = sum(seconds for _, seconds in it.waits) or 1.0
    one = Comparison(
        name="requests for one workspace",
        unit="requests/s",
        ours="Onebox, recorded",
        theirs="counting workflow",
        rounds=tuple(it.one),
    )
    all_of_them = Comparison(
        name=f"requests for {many} workspaces",
        unit="requests/s",
        ours="Onebox, recorded",
        theirs="counting workflow",
        rounds=tuple(it.many),
    )
    return Result(
        name="requests",
        title="Recreate requests",
        work=(
            f"{size.signals} `recreate` signals, {min(SENDERS, size.signals)} of them in progress "
            f"at once, for one workspace, and for {many} in turn. The workspaces are online and "
            "the requests name a past generation, so each is decided as stale. The time ends "
            f"when the last outcome is in PostgreSQL. {size.rounds} rounds."
        ),
        against=(
            "A workflow whose signal handler increments a counter, on its own worker process "
            "with the SDK's settings, at the same Temporal server. The time ends when a query "
            "has counted all. It neither decides nor records."
        ),
        comparisons=(one, all_of_them),
        lines=(Line(name="requests per second", unit="requests/s", points=tuple(it.growth)),),
        goals=(
            Goal(
                text="requests for one workspace, relative to counting",
                seen=one.ratio.median,
                relation=">=",
                limit=GOAL_SHARE,
            ),
            Goal(
                text=f"requests for {many} workspaces, relative to counting",
                seen=all_of_them.ratio.median,
                relation=">=",
                limit=GOAL_SHARE,
            ),
        ),
        profiles=(
            Profile(
                of="the one workspace's seconds in Temporal under load, from its last run's history",
                shares=tuple((name, 100 * seconds / total) for name, seconds in it.waits),
            ),
        ),
        notes=(
            "An outcome counts once it is in PostgreSQL. An activity writes it, and its "
            "completion is another workflow task: a single request costs two workflow tasks and "
            "an activity, while counting one costs one task. So for many workspaces the ratio "
            "stays below a half; many requests for one workspace share a task and a write. A "
            "local activity would save the second task, but the history would no longer contain "
            "the decision, which operators replay.",
        ),
    )
