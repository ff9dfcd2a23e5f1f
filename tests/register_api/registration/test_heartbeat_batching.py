"""Concurrent heartbeats over HTTP: cost, isolation from each other, durability."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import LiteralString

import httpx2
import pytest
from prometheus_client import Counter

from register_api.observability import metrics
from tests.register_api.http.database_proxy import Moment, Proxy
from tests.register_api.platform import Box, Platform, platform_on
from tests.register_api.rows import FULL, audit_entries, revoke, send_heartbeat
from tests.register_api.serving import PATIENT, ApiProcess, api_process

pytestmark = pytest.mark.anyio

BOXES = 40


async def known(platform: Platform, number: int) -> list[Box]:
    """Boxes that have sent a heartbeat, and so are known to the process."""
    return [await (await platform.workspace()).enter_and_use() for _ in range(number)]


async def heartbeat(boxes: Sequence[Box], **members: object) -> list[httpx2.Response]:
    """Send all heartbeats concurrently."""
    return await asyncio.gather(*(send_heartbeat(box, {"active_tasks": 0, **members}) for box in boxes))


async def tasks(platform: Platform, box: Box) -> int:
    """The active tasks of the last recorded heartbeat."""
    [row] = await platform.rows("SELECT active_tasks FROM heartbeats WHERE workspace_id = %s", box)
    return int(row["active_tasks"])


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[Proxy]:
    async with Proxy(database).running() as running:
        yield running


async def test_heartbeats_that_come_while_others_are_written_share_one_statement(proxy: Proxy) -> None:
    async with platform_on(proxy.url) as platform:
        boxes = await known(platform, BOXES)
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def stand_still() -> None:
            under_way.set()
            await go_on.wait()

        await boxes[0].heartbeat()  # prepares the statement
        proxy.set_trap(1, Moment.BEFORE, stand_still)
        first = asyncio.create_task(boxes[0].heartbeat(active_tasks=1))
        await under_way.wait()
        others = asyncio.gather(*(box.heartbeat(active_tasks=2) for box in boxes))
        for _ in range(100):
            await asyncio.sleep(0)  # they wait for nothing but the statement
        go_on.set()
        answers = [await first, *await others]
        assert {answer.status_code for answer in answers} == {200}
        assert len(proxy.statements) == 2
        assert [await tasks(platform, box) for box in boxes] == [2] * BOXES


async def test_each_heartbeat_of_a_batch_gets_its_own_answer_and_leaves_its_own_audit_entries(
    proxy: Proxy,
) -> None:
    async with platform_on(proxy.url) as platform:
        lives, revoked, superseded, stopped, silent = boxes = await known(platform, 5)
        await revoke(platform, revoked)
        current = await platform.replaced(superseded)
        await platform.intend(stopped, "stop")
        await platform.database.execute(
            "UPDATE heartbeats SET stale_since = now() WHERE workspace_id = %s", [silent.workspace_id]
        )
        before = await platform.everything(current)
        proxy.count()
        answers = await heartbeat([*boxes, lives], **FULL)
        assert [(answer.status_code, answer.json().get("code")) for answer in answers] == [
            (200, None), (401, "token_invalid"), (410, "superseded"), (410, "workspace_stopped"), (200, None),
            (200, None),
        ]  # fmt: skip
        batches = [text for text in proxy.statements if "SKIP LOCKED" in text]
        assert len(batches) <= 2, "they shared a batch"
        assert await platform.everything(current) == before
        assert await platform.events(silent) == [(1, "registered"), (1, "alive"), (1, "alive")]
        assert [(await audit_entries(platform, box))[1:] for box in boxes] == [
            [],
            [("not_valid", "unproven", "token_invalid", False)],
            [("not_valid", "superseded", "superseded", False)],
            [("not_valid", "superseded", "workspace_stopped", False)],
            [],
        ]


REFUSE: tuple[LiteralString, ...] = (
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
    " $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'check_violation'; END $$",
    "CREATE TRIGGER refuse BEFORE UPDATE ON heartbeats FOR EACH ROW WHEN (NEW.active_tasks = 666)"
    " EXECUTE FUNCTION refuse()",
)


async def test_a_heartbeat_that_cannot_be_written_fails_alone(platform: Platform) -> None:
    boxes = await known(platform, 5)
    for statement in REFUSE:
        await platform.database.execute(statement)
    bad, *good = boxes
    failed = metrics.CALLS.labels("heartbeat", "500", "internal_error")
    before = _count(failed)
    refused, *answers = await asyncio.gather(
        bad.heartbeat(active_tasks=666), *(box.heartbeat(active_tasks=3) for box in good)
    )
    assert (refused.status_code, refused.json()["code"]) == (500, "internal_error")
    assert _count(failed) == before + 1, "the alert on failures uses this series"
    assert {answer.status_code for answer in answers} == {200}
    assert [await tasks(platform, box) for box in boxes] == [0, 3, 3, 3, 3]


def _count(series: Counter) -> float:
    [metric] = series.collect()
    return metric.samples[0].value


@pytest.fixture
async def process(proxy: Proxy) -> AsyncIterator[ApiProcess]:
    with api_process(proxy.url, pool_size=1, waits=PATIENT) as running:
        yield running


@pytest.fixture
async def sockets(process: ApiProcess) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=process.url, timeout=60, trust_env=False, verify=False) as client:
        yield client


@pytest.mark.parametrize("moment", Moment)
async def test_heartbeats_that_a_killed_process_did_not_answer_are_written_all_or_none(
    platform: Platform, proxy: Proxy, process: ApiProcess, sockets: httpx2.AsyncClient, moment: Moment
) -> None:
    boxes = await known(replace(platform, client=sockets), 8)
    assert {answer.status_code for answer in await heartbeat(boxes)} == {200}

    async def kill() -> None:
        process.kill()
        proxy.cut()

    proxy.set_trap(1, moment, kill)
    calls = [asyncio.create_task(box.heartbeat(active_tasks=7)) for box in boxes]
    await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert all(isinstance(error, httpx2.TransportError) for error in errors), "no call was answered"
    noted = [await tasks(platform, box) for box in boxes]
    if moment is Moment.BEFORE:
        assert noted == [0] * 8
    else:
        assert 7 in noted, "the first batch was committed"
    process.start()
    assert {answer.status_code for answer in await heartbeat(boxes)} == {200}
