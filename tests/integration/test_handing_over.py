"""A worker that gets SIGTERM during an activity finishes it, or another worker takes over at once.

It uses a stack without boxes; the tests start the workers.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import httpx2
import pytest
from temporalio.api.enums.v1 import EventType, PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo

from devstack.console import Console, connected, eventually
from devstack.processes import LOCALHOST, Child, free_port
from devstack.stack import PARTS, Stack
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio

SECONDS = 120.0

QUEUES = 3
STOPS = "Beginning worker shutdown"
"""The SDK's log line for each worker of a process, one per task queue."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with Stack(
        free_ports=True,
        fsync=False,
        parts=[part for part in PARTS if part not in ("worker", "boxes")],
        settings={"CANARY": "off", "WORKER_METRICS_BIND": "", "SDK_METRICS_BIND": ""},
        pending_seconds=0.1,
        terminating_seconds=0.1,
    ) as stack:
        yield stack


@pytest.fixture
async def console(stack: Stack) -> AsyncIterator[Console]:
    async with connected(stack) as console:
        console.aws.clear()
        yield console
        console.aws.clear()


@contextmanager
def worker(stack: Stack, name: str, *, grace_seconds: int, probes: int | None = None) -> Iterator[Child]:
    told = {"GRACEFUL_SHUTDOWN_SECONDS": str(grace_seconds)}
    if probes is not None:
        told["WORKER_HEALTH_BIND"] = f"{LOCALHOST}:{probes}"
    child = Child(
        name,
        [sys.executable, "-m", "cli", "worker"],
        log=stack.log(name),
        environment=stack.environment | told,
    )
    child.start()
    try:
        child.wait_ready(logged(child, "worker.started"), seconds=SECONDS)
        yield child
    finally:
        child.kill()


def logged(child: Child, event: str, *, times: int = 1) -> Callable[[], bool]:
    return lambda: child.log_text().count(event) == times


def identity(worker: Child) -> str:
    """The SDK's format."""
    return f"{worker.pid}@{socket.gethostname()}"


async def probed(port: int, path: str) -> int:
    async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
        return (await http.get(f"http://{LOCALHOST}:{port}/{path}")).status_code


async def ended(worker: Child) -> int | None:
    assert await asyncio.to_thread(worker.wait, seconds=SECONDS), "it does not end"
    return worker.exit_code


async def starts(console: Console, workspace: str, activity: str) -> list[tuple[int, str]]:
    """Attempt and worker of each recorded start of such an activity."""
    events = [event async for event in console.workflow(workspace).fetch_history_events()]
    scheduled = {
        event.event_id
        for event in events
        if event.activity_task_scheduled_event_attributes.activity_type.name == activity
    }
    return [
        (started.attempt, started.identity)
        for event in events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED
        and (started := event.activity_task_started_event_attributes).scheduled_event_id in scheduled
    ]


async def test_a_call_to_aws_that_is_under_way_is_finished(stack: Stack, console: Console) -> None:
    probes = free_port()
    with worker(stack, "first", grace_seconds=60, probes=probes) as first:
        held = console.aws.inject("RunInstances", "hold")
        await console.start("ws-1")
        await asyncio.to_thread(console.aws.wait_until_held, held, seconds=SECONDS)
        os.kill(first.pid, signal.SIGTERM)
        # All task queues stop at once: none accepts work while another one's is being finished.
        await asyncio.to_thread(first.wait_ready, logged(first, STOPS, times=QUEUES), seconds=SECONDS)
        assert [await probed(probes, path) for path in ("readyz", "healthz")] == [503, 200]
        console.aws.release(held)
        assert await ended(first) == 0, first.tail()
        finisher = identity(first)

    with worker(stack, "second", grace_seconds=60) as second:
        await console.until_phase("ws-1", Phase.AWAITING_REGISTRATION, seconds=SECONDS)
        assert await starts(console, "ws-1", "launch") == [(1, finisher)]
        assert console.aws.counts("ws-1").launches == 1
        os.kill(second.pid, signal.SIGTERM)
        assert await ended(second) == 0, second.tail()


async def test_a_wait_that_is_longer_than_its_patience_is_handed_to_another_worker(
    stack: Stack, console: Console
) -> None:
    async def waiting() -> PendingActivityInfo | None:
        description = await console.workflow("ws-2").describe()
        for pending in description.raw_description.pending_activities:
            if (
                pending.activity_type.name == "address"
                and pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
            ):
                return pending
        return None

    with (
        worker(stack, "leaves", grace_seconds=0) as leaves,
        worker(stack, "stays", grace_seconds=0) as stays,
    ):
        console.aws.inject("RunInstances", "slow_change", seconds=3600)  # the instance stays pending
        await console.start("ws-2")
        held = await eventually(waiting, lambda it: it is not None, seconds=SECONDS)
        assert held is not None
        by_name = {identity(each): each for each in (leaves, stays)}
        holder = by_name.pop(held.last_worker_identity)
        [(other, _)] = by_name.items()

        os.kill(holder.pid, signal.SIGTERM)
        assert await ended(holder) == 0, holder.tail()
        pending = await eventually(
            waiting, lambda it: it is not None and it.last_worker_identity == other, seconds=SECONDS
        )
        assert pending is not None
        assert pending.attempt == held.attempt + 1
        # It was notified; otherwise only missing heartbeats would reveal it.
        assert "shut" in pending.last_failure.message.lower(), pending.last_failure
        assert "timeout" not in pending.last_failure.message.lower()
