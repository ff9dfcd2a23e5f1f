"""The queue of unknown callers: fairness, limits, and that no slot is ever lost."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from register_api.auth.priority_pool import FairQueue, PoolSaturated

pytestmark = pytest.mark.anyio

SLOTS = 2
LONG = 600.0
"""No caller times out after so long, even if the machine pauses."""


class Caller:
    """One call through a queue; it keeps its slot until `leave` is set."""

    def __init__(self, queue: FairQueue, source: str) -> None:
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._call(queue, source))

    async def _call(self, queue: FairQueue, source: str) -> None:
        async with queue.slot(source):
            self.inside = True
            try:
                await self.leave.wait()
            finally:
                self.inside = False

    async def end(self) -> str:
        """How the call ended; raises any unexpected exception."""
        await asyncio.wait([self.task])
        if self.task.cancelled():
            return "hung up"
        error = self.task.exception()
        if isinstance(error, PoolSaturated):
            return "refused"
        if error is not None:
            raise error
        return "served"


async def settled() -> None:
    """Run the event loop until all tasks wait for something else."""
    for _ in range(10):
        await asyncio.sleep(0)


async def filled(queue: FairQueue) -> list[Caller]:
    """Take all slots of an idle queue."""
    callers = [Caller(queue, "the first") for _ in range(SLOTS)]
    await settled()
    assert all(caller.inside for caller in callers)
    return callers


async def assert_whole(queue: FairQueue) -> None:
    """An idle queue has exactly its slots."""
    callers = await filled(queue)
    callers.append(Caller(queue, "one too many"))
    await settled()
    assert not callers[-1].inside
    callers[-1].task.cancel()
    for caller in callers:
        caller.leave.set()
        await caller.end()


async def order_of_service(queue: FairQueue, sources: Sequence[str]) -> list[str]:
    """The order in which callers that wait at the same time are served, without the refused ones."""
    before = await filled(queue)
    callers = {}
    for number, source in enumerate(sources):
        callers[f"{source}{number}"] = Caller(queue, source)
        await settled()
    before[0].leave.set()  # with one slot they are served one by one
    served = []
    while True:
        await settled()
        inside = [name for name, caller in callers.items() if caller.inside]
        if not inside:
            break
        served += inside
        callers[inside[0]].leave.set()
    before[1].leave.set()
    for caller in callers.values():
        await caller.end()
    await assert_whole(queue)
    return served


async def test_sources_take_turns_so_a_flood_from_one_delays_itself() -> None:
    assert await order_of_service(FairQueue(SLOTS, timeout=LONG), "aaaabbc") == [
        "a0",
        "b4",
        "c6",
        "a1",
        "b5",
        "a2",
        "a3",
    ]


async def test_in_a_full_queue_the_newest_of_the_largest_source_is_refused() -> None:
    # The fifth replaces the third, its source's newest; the sixth would be the newest itself.
    assert await order_of_service(FairQueue(SLOTS, queue_limit=4, timeout=LONG), "aaabba") == [
        "a0",
        "b3",
        "a1",
        "b4",
    ]


async def test_a_cancelled_caller_takes_no_place_in_the_queue() -> None:
    queue = FairQueue(SLOTS, queue_limit=3, timeout=LONG)
    before = await filled(queue)
    for _ in range(2):
        gone = Caller(queue, "a")
        await settled()
        gone.task.cancel()
        await gone.end()
    waiting = [Caller(queue, "a"), Caller(queue, "b"), Caller(queue, "b")]
    await settled()
    for caller in (*before, *waiting):
        caller.leave.set()
    assert [await caller.end() for caller in waiting] == ["served"] * 3
    await assert_whole(queue)


async def test_a_caller_without_a_slot_in_time_is_refused() -> None:
    queue = FairQueue(SLOTS, timeout=0)
    before = await filled(queue)
    late = Caller(queue, "a")
    assert await late.end() == "refused"
    for caller in before:
        caller.leave.set()
        assert await caller.end() == "served"
    await assert_whole(queue)


Act = tuple[str, int]
ACTS = st.lists(
    st.tuples(st.sampled_from(["enter", "enter", "leave", "hang up", "step", "step"]), st.integers(0, 3)),
    max_size=40,
)
CROWD: list[Act] = [("enter", 0), ("enter", 0), ("step", 0), ("enter", 1), ("enter", 2), ("step", 0)]


@pytest.mark.parametrize("timeout", [0, LONG])
@pytest.mark.parametrize("queue_limit", [1000, 2])
@given(acts=ACTS)
@example(acts=[*CROWD, ("enter", 3), ("hang up", 2)])
def test_no_sequence_of_events_loses_a_slot(queue_limit: int, timeout: float, acts: list[Act]) -> None:
    asyncio.run(_play(FairQueue(SLOTS, queue_limit=queue_limit, timeout=timeout), acts))


async def _play(queue: FairQueue, acts: Sequence[Act]) -> None:
    callers: list[Caller] = []
    for act, number in acts:
        match act:
            case "enter":
                callers.append(Caller(queue, f"source {number}"))
            case "step":
                await asyncio.sleep(0)
            case "leave" if callers:
                callers[-1 - number % len(callers)].leave.set()
            case "hang up" if callers:
                callers[-1 - number % len(callers)].task.cancel()
        assert sum(caller.inside for caller in callers) <= SLOTS
    for caller in callers:
        caller.leave.set()
    for caller in callers:
        await caller.end()
    await assert_whole(queue)
