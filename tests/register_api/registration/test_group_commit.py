"""Group commit: the content of batches, the result of each caller, and that no caller waits forever."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from register_api.registration.group_commit import Batcher, BatchFailed
from store.db.pool import StoreUnavailable

pytestmark = pytest.mark.anyio

MAX_BATCH = 3


class Ledger:
    """The batcher's target: each write waits until the test lets it succeed or fail."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.under_way: asyncio.Future[None] | None = None
        self.batcher: Batcher[int, str] = Batcher(self._write, max_batch=MAX_BATCH)

    async def _write(self, items: Sequence[int]) -> list[str]:
        assert self.under_way is None, "one writer at a time"
        self.under_way = asyncio.get_running_loop().create_future()
        self.written.append(list(items))
        try:
            await self.under_way
        finally:
            self.under_way = None
        return [f"result of {item}" for item in items]

    def add(self, item: int) -> "asyncio.Task[str]":
        return asyncio.create_task(self.batcher.submit(item))

    async def go_on(self, error: Exception | None = None) -> None:
        """End the running write, and run everything that follows."""
        assert self.under_way is not None
        if error is None:
            self.under_way.set_result(None)
        else:
            self.under_way.set_exception(error)
        await settled()


async def settled() -> None:
    """Run the event loop until all tasks wait for something else."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_items_submitted_during_a_write_are_written_together_in_order() -> None:
    ledger = Ledger()
    calls = [ledger.add(1)]
    await settled()
    calls += [ledger.add(2), ledger.add(3)]
    await ledger.go_on()
    assert ledger.written == [[1], [2, 3]]
    assert [call.done() for call in calls] == [True, False, False]
    await ledger.go_on()
    assert [await call for call in calls] == ["result of 1", "result of 2", "result of 3"]


async def test_a_failure_reaches_each_waiting_caller_and_no_later_one() -> None:
    ledger = Ledger()
    taken = [ledger.add(1), ledger.add(2)]
    await settled()
    waiting = ledger.add(3)
    await settled()
    outage = StoreUnavailable("the database is away")
    await ledger.go_on(outage)
    errors = [call.exception() for call in (*taken, waiting)]
    assert [(type(error), str(error)) for error in errors] == [(BatchFailed, "the database is away")] * 3
    assert all(error is not None and error.__cause__ is outage for error in errors)
    assert len({id(error) for error in errors}) == 3, (
        "each caller has its own exception object: tracebacks would accumulate"
    )
    assert ledger.written == [[1, 2]]
    later = ledger.add(4)
    await settled()
    await ledger.go_on()
    assert await later == "result of 4"


async def test_a_bug_leaves_no_caller_waiting_and_is_reported() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    ledger = Ledger()
    call = ledger.add(1)
    await settled()
    bug = ZeroDivisionError("a bug")
    await ledger.go_on(bug)
    error = call.exception()
    assert isinstance(error, BatchFailed)
    assert error.__cause__ is bug
    del call, error
    await settled()
    assert [context["exception"] for context in reported] == [bug]


async def test_too_few_results_leave_no_caller_waiting() -> None:
    async def write(items: Sequence[int]) -> list[int]:
        return list(items[1:])

    asyncio.get_running_loop().set_exception_handler(lambda _, context: None)
    batcher = Batcher(write, max_batch=MAX_BATCH)
    calls = [asyncio.create_task(batcher.submit(number)) for number in range(2)]
    await asyncio.wait(calls)
    assert isinstance(calls[1].exception(), BatchFailed)


def test_the_end_of_the_loop_leaves_no_caller_waiting() -> None:
    async def end(calls: "list[asyncio.Task[str]]") -> None:
        ledger = Ledger()
        calls.append(ledger.add(1))
        await settled()
        for task in asyncio.all_tasks() - {asyncio.current_task(), *calls}:
            task.cancel()
        await asyncio.wait(calls)

    calls: list[asyncio.Task[str]] = []
    asyncio.run(end(calls))
    assert isinstance(calls[0].exception(), BatchFailed)


Act = tuple[str, int]
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "go on", "fail", "hang up", "step", "step"]), st.integers(0, 5)
    ),
    max_size=40,
)
FULL: list[Act] = [("add", 0)] * 5 + [("step", 0), ("hang up", 0), ("hang up", 3)]


@given(acts=ACTS)
@example(acts=[*FULL, ("go on", 0), ("step", 0), ("fail", 0), ("hang up", 0)])
def test_each_caller_gets_its_own_result_and_no_item_is_written_twice(
    acts: list[Act],
) -> None:
    asyncio.run(_play(acts))


async def _play(acts: Sequence[Act]) -> None:
    ledger = Ledger()
    calls: list[asyncio.Task[str]] = []
    failed: set[int] = set()
    for act, number in acts:
        match act:
            case "add":
                calls.append(ledger.add(len(calls)))
            case "step":
                await asyncio.sleep(0)
            case "go on" if ledger.under_way is not None and not ledger.under_way.done():
                ledger.under_way.set_result(None)
            case "fail" if ledger.under_way is not None and not ledger.under_way.done():
                failed |= set(ledger.written[-1])
                ledger.under_way.set_exception(StoreUnavailable("away"))
            case "hang up" if calls:
                calls[-1 - number % len(calls)].cancel()
    await settled()
    while ledger.under_way is not None:
        await ledger.go_on()
    assert all(call.done() for call in calls)
    written = [item for batch in ledger.written for item in batch]
    assert written == sorted(written), "in the order of submission, and none twice"
    assert len(written) == len(set(written))
    assert all(0 < len(batch) <= MAX_BATCH for batch in ledger.written)
    for item, call in enumerate(calls):
        if call.cancelled():
            continue
        error = call.exception()
        if error is None:
            assert call.result() == f"result of {item}"
            assert item in written
            assert item not in failed
        else:
            assert isinstance(error, BatchFailed)
            assert item in failed or item not in written
