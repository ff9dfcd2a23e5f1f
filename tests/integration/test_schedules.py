"""The schedules of a running stack are kept: lost ones come back, paused ones stay paused."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial

import httpx2
import pytest
from temporalio.client import Schedule, ScheduleIntervalSpec, ScheduleUpdate, ScheduleUpdateInput
from temporalio.service import RPCError

from devstack.console import Console, connected, eventually
from devstack.stack import Stack
from tests.stacks import hurried
from tests.telemetry.exported import Exported
from workflows.shared.names import REPAIR_SCHEDULE, SWEEP_SCHEDULE, WATCHDOG_SCHEDULE

pytestmark = pytest.mark.anyio

SETTINGS = {
    "SCHEDULE_CHECK_INTERVAL_SECONDS": "1",
    "WATCHDOG_INTERVAL_SECONDS": "41",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "42",
    "REPAIR_INTERVAL_SECONDS": "43",
}
INTERVALS = {
    WATCHDOG_SCHEDULE: timedelta(seconds=41),
    SWEEP_SCHEDULE: timedelta(seconds=42),
    REPAIR_SCHEDULE: timedelta(seconds=43),
}
NOTE = "by admin:alice, while she looks"


@pytest.fixture(scope="module")
def kept_stack() -> Iterator[Stack]:
    with hurried(SETTINGS) as stack:
        yield stack


@pytest.fixture
async def console(kept_stack: Stack) -> AsyncIterator[Console]:
    async with connected(kept_stack) as console:
        for schedule_id in INTERVALS:
            await back(console, schedule_id)
        yield console


async def found(console: Console, schedule_id: str) -> Schedule | None:
    """The schedule; None while there is none."""
    try:
        return (await console.client.get_schedule_handle(schedule_id).describe()).schedule
    except RPCError:
        return None


async def back(console: Console, schedule_id: str) -> Schedule:
    """The schedule, once it has the interval of the settings."""

    def as_set(schedule: Schedule | None) -> bool:
        return schedule is not None and [each.every for each in schedule.spec.intervals] == [
            INTERVALS[schedule_id]
        ]

    schedule = await eventually(partial(found, console, schedule_id), as_set)
    assert schedule is not None
    return schedule


async def metric(stack: Stack, name: str, schedule_id: str) -> float:
    async with httpx2.AsyncClient(trust_env=False) as http:
        response = await http.get(stack.metrics_urls["worker"])
    exported = Exported()
    exported.take(response.text)
    return exported.value(name, schedule=schedule_id)


async def test_a_deleted_schedule_comes_back(kept_stack: Stack, console: Console) -> None:
    for schedule_id in INTERVALS:
        await console.client.get_schedule_handle(schedule_id).delete()
    for schedule_id in INTERVALS:
        assert not (await back(console, schedule_id)).state.paused
        counted = partial(metric, kept_stack, "onebox_schedules_recreated_total", schedule_id)
        await eventually(counted, lambda count: count == 1)
    assert kept_stack.log("worker").read_text().count("schedule.recreated") == 3


async def test_a_paused_schedule_stays_paused(kept_stack: Stack, console: Console) -> None:
    handle = console.client.get_schedule_handle(SWEEP_SCHEDULE)
    await handle.pause(note=NOTE)
    reported = partial(metric, kept_stack, "onebox_schedule_paused", SWEEP_SCHEDULE)
    await eventually(reported, lambda paused: paused == 1)
    log = kept_stack.log("worker")
    assert log.read_text().count("schedule.paused") == 1

    def edit(current: ScheduleUpdateInput) -> ScheduleUpdate:
        schedule = current.description.schedule
        schedule.spec.intervals = [ScheduleIntervalSpec(every=timedelta(days=1))]
        return ScheduleUpdate(schedule=schedule)

    await handle.update(edit)
    await eventually(lambda: asyncio.to_thread(log.read_text), lambda text: "schedule.updated" in text)
    updated = await back(console, SWEEP_SCHEDULE)
    assert (updated.state.paused, updated.state.note) == (True, NOTE)

    await handle.delete()
    recreated = await back(console, SWEEP_SCHEDULE)
    assert (recreated.state.paused, recreated.state.note) == (True, NOTE)

    await handle.unpause(note="done")
    await eventually(reported, lambda paused: paused == 0)
    assert "schedule.resumed" in log.read_text()
    assert log.read_text().count("schedule.paused") == 1


async def test_the_schedules_come_back_after_temporals_database_is_lost(
    kept_stack: Stack, console: Console
) -> None:
    worker = kept_stack.pids["worker"]
    await asyncio.to_thread(kept_stack.stop, "temporal")
    for file in (kept_stack.state_dir / "temporal").glob("temporal.db*"):
        file.unlink()
    await asyncio.to_thread(kept_stack.start, "temporal")
    for schedule_id in INTERVALS:
        await back(console, schedule_id)
    assert kept_stack.pids["worker"] == worker
