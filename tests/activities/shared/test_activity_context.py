"""Heartbeats while an activity waits, and calls that a cancellation does not abandon."""

import asyncio
import threading

import pytest
import structlog
from temporalio import activity
from temporalio.testing import ActivityEnvironment

from activities.aws.client import Aws
from activities.shared import activity_context

pytestmark = pytest.mark.anyio


async def test_an_activity_sends_heartbeats_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activity_context, "HEARTBEAT_INTERVAL", activity_context.HEARTBEAT_INTERVAL / 100)
    environment = ActivityEnvironment()
    beaten = asyncio.Event()
    environment.on_heartbeat = lambda *_: beaten.set()

    @activity.defn
    async def waits() -> None:
        async with activity_context.activity_context("ws", 1):
            await asyncio.wait_for(beaten.wait(), 60)

    await environment.run(waits)


async def test_log_lines_carry_workspace_and_generation() -> None:
    async with activity_context.activity_context("ws", 7):
        assert structlog.contextvars.get_contextvars() == {"workspace": "ws", "generation": 7}
    assert structlog.contextvars.get_contextvars() == {}


async def test_a_cancelled_call_ends_before_the_activity_does(aws: Aws) -> None:
    started, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def blocking() -> None:
        started.set()
        may_end.wait(60)
        ended.set()

    task = asyncio.create_task(aws.call(blocking))
    assert await asyncio.to_thread(started.wait, 60)
    task.cancel()
    await asyncio.wait([task], timeout=0.01)
    task.cancel()  # a worker that shuts down may cancel twice
    await asyncio.wait([task], timeout=0.01)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_call_that_fails_after_the_cancellation_leaves_no_trace(aws: Aws) -> None:
    started, may_end = threading.Event(), threading.Event()

    def failing() -> None:
        started.set()
        may_end.wait(60)
        raise ValueError("nobody wants this any more")

    task = asyncio.create_task(aws.call(failing))
    assert await asyncio.to_thread(started.wait, 60)
    task.cancel()
    await asyncio.wait([task], timeout=0.01)
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_call_gives_its_result_and_its_error(aws: Aws) -> None:
    assert await aws.call(sorted, [2, 1]) == [1, 2]
    with pytest.raises(ValueError, match="invalid literal"):
        await aws.call(int, "x")
