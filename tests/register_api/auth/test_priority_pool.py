"""The lane of callers that are not known yet: turns, bounds, and no place that ever gets lost."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from register_api.auth.priority_pool import FairQueue, PoolSaturated

pytestmark = pytest.mark.anyio

SLOTS = 2
LONG = 600.0
"""Nobody who waits so long gives up, even if the machine stands still meanwhile."""


class Caller:
    """One call through a lane; once inside, it stays until it is told to leave."""

    def __init__(self, lane: FairQueue, source: str) -> None:
        self.inside = False
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._call(lane, source))

    async def _call(self, lane: FairQueue, source: str) -> None:
        async with lane.slot(source):
            self.inside = True
            try:
                await self.leave.wait()
            finally:
                self.inside = False

    async def end(self) -> str:
        """How it ended; raises what nobody expects."""
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
    """Let everything happen that waits for nothing but its turn in the loop."""
    for _ in range(10):
        await asyncio.sleep(0)


async def filled(lane: FairQueue) -> list[Caller]:
    """Take all the places of a lane that is at rest; there must be as many as it was made with."""
    callers = [Caller(lane, "the first") for _ in range(SLOTS)]
    await settled()
    assert all(caller.inside for caller in callers)
    return callers


async def assert_whole(lane: FairQueue) -> None:
    """A lane at rest has all its places, and not one more."""
    callers = await filled(lane)
    callers.append(Caller(lane, "one too many"))
    await settled()
    assert not callers[-1].inside
    callers[-1].task.cancel()
    for caller in callers:
        caller.leave.set()
        await caller.end()


async def order_of_service(lane: FairQueue, sources: Sequence[str]) -> list[str]:
    """In which order callers come in that all wait at once; the refused ones are left out."""
    before = await filled(lane)
    callers = {}
    for number, source in enumerate(sources):
        callers[f"{source}{number}"] = Caller(lane, source)
        await settled()
    before[0].leave.set()  # only one place: they come in one by one
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
    await assert_whole(lane)
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


async def test_in_a_crowd_the_newest_of_the_largest_one_is_refused() -> None:
    # The fifth comes in place of the third, the crowd's newest; the sixth would be its newest itself.
    assert await order_of_service(FairQueue(SLOTS, queue_limit=4, timeout=LONG), "aaabba") == [
        "a0",
        "b3",
        "a1",
        "b4",
    ]


async def test_whoever_gave_up_takes_no_room_in_the_crowd() -> None:
    lane = FairQueue(SLOTS, queue_limit=3, timeout=LONG)
    before = await filled(lane)
    for _ in range(2):
        gone = Caller(lane, "a")
        await settled()
        gone.task.cancel()
        await gone.end()
    waiting = [Caller(lane, "a"), Caller(lane, "b"), Caller(lane, "b")]
    await settled()
    for caller in (*before, *waiting):
        caller.leave.set()
    assert [await caller.end() for caller in waiting] == ["served"] * 3
    await assert_whole(lane)


async def test_whoever_finds_no_room_in_time_is_refused() -> None:
    lane = FairQueue(SLOTS, timeout=0)
    before = await filled(lane)
    late = Caller(lane, "a")
    assert await late.end() == "refused"
    for caller in before:
        caller.leave.set()
        assert await caller.end() == "served"
    await assert_whole(lane)


async def test_a_place_that_is_given_to_a_caller_in_the_moment_of_its_timeout_is_passed_on() -> None:
    lane = FairQueue(SLOTS, timeout=0)
    first, second = await filled(lane)
    late = Caller(lane, "a")
    first.leave.set()
    # Now `late` queues up, `first` leaves to it, and then its time is over: all before it runs again.
    assert await late.end() == "refused"
    second.leave.set()
    await second.end()
    await assert_whole(lane)


async def test_a_place_that_is_given_to_a_caller_in_the_moment_of_its_hanging_up_is_passed_on() -> None:
    lane = FairQueue(SLOTS, timeout=LONG)
    first, second = await filled(lane)
    waiting = Caller(lane, "a")
    first.leave.set()
    await asyncio.sleep(0)  # it queues up, and `first` leaves to it
    waiting.task.cancel()
    assert await waiting.end() == "hung up"
    second.leave.set()
    await second.end()
    await assert_whole(lane)


async def test_a_caller_that_has_just_given_up_is_no_crowd() -> None:
    lane = FairQueue(SLOTS, queue_limit=1, timeout=LONG)
    before = await filled(lane)
    waiting = Caller(lane, "a")
    await settled()
    newest = Caller(lane, "b")
    waiting.task.cancel()  # it hears of it after `newest` has looked at the crowd
    await settled()
    for caller in (*before, newest):
        caller.leave.set()
    assert await waiting.end() == "hung up"
    assert await newest.end() in ("served", "refused")
    await assert_whole(lane)


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
def test_whatever_comes_together_no_place_is_lost(queue_limit: int, timeout: float, acts: list[Act]) -> None:
    asyncio.run(_play(FairQueue(SLOTS, queue_limit=queue_limit, timeout=timeout), acts))


async def _play(lane: FairQueue, acts: Sequence[Act]) -> None:
    callers: list[Caller] = []
    for act, number in acts:
        match act:
            case "enter":
                callers.append(Caller(lane, f"source {number}"))
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
    await assert_whole(lane)
