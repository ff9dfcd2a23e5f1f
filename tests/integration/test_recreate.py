"""Overlapping recreate requests on the whole stack: one launch, and an outcome for each request."""

import asyncio
from collections import Counter

import psutil
import pytest

from devstack.console import TIMEOUT_SECONDS, Console, call_with_retries, eventually
from devstack.stack import Stack
from tests.integration.fleet import going_on
from tests.integration.test_registering import REGISTER, box_of, calling, suspended, token_file
from tests.integration.wire import Wire
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

HEARTBEAT = "/registry/heartbeat"
BEAT_SECONDS = 0.5

SOURCES = ("watchdog", "auto-recovery", "admin:core-devops")
REQUESTS = 300


async def storm(console: Console, workspace: str, *, observed: int, round_: int) -> None:
    """300 requests from three sources: the programs send signals, the admin runs updates."""
    updates = asyncio.Semaphore(8)  # the server accepts ten at a time per workflow

    async def ask(number: int) -> None:
        source = SOURCES[number % 3]
        request = {"observed_generation": observed, "request_id": f"round-{round_}-{number}"}
        if source.startswith("admin"):
            async with updates:
                await console.ask(workspace, requested_by=source, **request)
        else:
            await console.signal(workspace, requested_by=source, **request)

    await asyncio.gather(*(ask(number) for number in range(REQUESTS)))


async def outcomes(console: Console, workspace: str, *, round_: int) -> Counter[str]:
    """The recorded outcomes of a round, once all exist."""

    async def look() -> Counter[str]:
        rows = await console.rows(
            "SELECT outcome FROM requests WHERE workspace_id = %s AND request_id LIKE %s",
            workspace,
            f"round-{round_}-%",
        )
        return Counter(str(row["outcome"]) for row in rows)

    return await eventually(look, lambda seen: seen.total() >= REQUESTS)


async def test_300_overlapping_requests_launch_one_box_and_the_same_300_later_launch_none(
    console: Console, wire: Wire, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)

    # The new box's calls are delayed until all have requested, so that the requests overlap.
    with wire.interfere(workspace, REGISTER, times=1000, delay=True):
        await storm(console, workspace, observed=1, round_=1)
        first = await outcomes(console, workspace, round_=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert first == Counter({OutcomeKind.ACCEPTED: 1, OutcomeKind.JOINED: 299})
    assert console.aws.counts(workspace).launches == 2

    await storm(console, workspace, observed=1, round_=2)
    second = await outcomes(console, workspace, round_=2)
    assert second == Counter({OutcomeKind.STALE: 300})
    counts = console.aws.counts(workspace)
    assert (counts.launches, counts.max_alive_at_once, counts.dns_changes) == (2, 1, 2)
    assert (await console.status(workspace)).generation == 2


async def test_a_cancellation_does_nothing_and_is_seen(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.workflow(workspace).cancel()
    [seen] = await eventually(lambda: console.requests(workspace), lambda requests: len(requests) == 1)
    assert seen.outcome is OutcomeKind.REJECTED
    await console.ask(workspace, requested_by="admin:alice")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)


async def test_a_box_is_given_up_while_its_agent_still_thinks_about_the_canary(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    # All of its heartbeats, because it retries after a timeout.
    with wire.interfere(workspace, HEARTBEAT, times=1000, delay=True) as held:
        await console.start(workspace)
        assert await asyncio.to_thread(held.caught.wait, TIMEOUT_SECONDS)
        box = await box_of(stack, workspace)
        token = token_file(box).read_text().strip()
        script = psutil.Process(box.pid)
        # Its heartbeat is in progress, and it answers nothing else.
        await suspended(script, *script.children(recursive=True))

    async def beat() -> None:
        """Send heartbeats in its name, like an agent that is busy but not silent."""
        async with calling(stack, token) as http:
            while True:
                await call_with_retries(http, "POST", HEARTBEAT, {"workspace_id": workspace})
                await asyncio.sleep(BEAT_SECONDS)

    async with going_on(beat()):
        asking = await eventually(
            lambda: console.status(workspace),
            lambda status: "sending the agent a canary" in status.waiting_for,
        )
        assert asking.phase is Phase.AWAITING_REGISTRATION
        outcome = await console.ask(workspace, requested_by="admin:alice", observed_generation=1, force=True)
        assert outcome.outcome is OutcomeKind.ACCEPTED
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert console.aws.counts(workspace).max_unterminated_at_once == 1
