"""Calls that a box makes while it is being replaced: what is written after that is not its word (I6)."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from devstack.console import eventually
from tests.register_api.delegation.delegating import (
    delegate,
    delegated,
    made_by,
    record,
    row,
    rows,
    said,
    update,
    working,
)
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio


async def waiting(platform: Platform) -> bool:
    """Whether somebody waits for what the transaction that asks holds."""
    query = "SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    return bool(await rows(platform, query))


async def replaced_during(
    platform: Platform, box: Box, call: Awaitable[httpx.Response], *, holding: Callable[[], Awaitable[object]]
) -> httpx.Response:
    """The call's write waits for what `holding` locks, and goes on once its box has been replaced."""
    async with platform.database.transaction():
        # The call may hold what the replacement needs. Then the call gives way: after a second, as a
        # rule; or when its time for the lock is over, if it looked who waits for whom before we waited.
        await platform.database.execute("SET LOCAL deadlock_timeout = '10min'")
        await holding()
        answer = asyncio.ensure_future(call)
        await eventually(lambda: waiting(platform), bool, seconds=60)
        await platform.replaced(box)
    return await answer


def locked(platform: Platform, delegation_id: str) -> Callable[[], Awaitable[object]]:
    query = "SELECT FROM delegations WHERE delegation_id = %s FOR UPDATE"
    return lambda: rows(platform, query, delegation_id)


@pytest.mark.parametrize("word", ["acked", "completed", "failed"])
async def test_a_target_that_is_replaced_while_it_speaks_of_an_end_is_not_heard(
    platform: Platform, word: str
) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await delegated(source, target)
    await platform.database.execute(
        "UPDATE delegations SET state = 'delivered', target_generation = 1, attempts = 1"
        " WHERE delegation_id = %s",
        [delegation],
    )
    before = await row(platform, delegation)

    async def superseding() -> None:
        await platform.close(target)  # not committed yet: the check still sees the box as the current one

    answer = await replaced_during(platform, target, update(target, delegation, word), holding=superseding)
    assert (answer.status_code, answer.json().get("status")) in {(503, None), (410, None)}
    assert await row(platform, delegation) == before
    assert "processing" not in [kind for _, kind in await platform.facts(target)]


async def test_a_target_that_is_replaced_while_it_speaks_of_progress_makes_none(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await delegated(source, target)
    assert await said(target, delegation, "in_progress") == "in_progress"
    await platform.database.execute(
        "UPDATE delegations SET stalled = true WHERE delegation_id = %s", [delegation]
    )
    before = await row(platform, delegation)
    call = update(target, delegation, "in_progress")
    await replaced_during(platform, target, call, holding=locked(platform, delegation))
    assert await row(platform, delegation) == before


@pytest.mark.parametrize("word", ["acked", "completed", "failed"])
async def test_a_source_that_is_replaced_while_it_speaks_of_its_own_work_is_not_heard(
    platform: Platform, word: str
) -> None:
    source, target = await working(platform), await working(platform)
    name = f"own-{word}"
    assert (await record(source, target, name)).status_code == 202
    before = await row(platform, name)
    await replaced_during(platform, source, update(source, name, word), holding=locked(platform, name))
    assert await row(platform, name) == before


@pytest.mark.parametrize("call", ["delegate", "record"])
async def test_a_source_that_is_replaced_while_it_asks_for_work_gets_none_written(
    platform: Platform, call: str
) -> None:
    source, target = await working(platform), await working(platform)
    query = "SELECT FROM workspaces WHERE workspace_id = %s FOR UPDATE"
    asked = delegate(source, target) if call == "delegate" else record(source, target, "overtaken")
    await replaced_during(platform, source, asked, holding=lambda: platform.rows(query, target))
    assert await made_by(platform, source) == []
