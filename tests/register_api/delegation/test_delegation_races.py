"""Calls of a box that is replaced meanwhile: nothing that it reports is written afterwards (I6)."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx2
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
    """Whether a session waits for a lock of the asking transaction."""
    query = "SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
    return bool(await rows(platform, query))


async def replaced_during(
    platform: Platform,
    box: Box,
    call: Awaitable[httpx2.Response],
    *,
    holding: Callable[[], Awaitable[object]],
) -> httpx2.Response:
    """Replace the box while its call waits for a lock that `holding` takes; the call's response."""
    async with platform.database.transaction():
        # The call may hold a lock that the replacement needs. Then PostgreSQL must cancel the call,
        # so this transaction never checks for deadlocks itself.
        await platform.database.execute("SET LOCAL deadlock_timeout = '10min'")
        await holding()
        answer = asyncio.ensure_future(call)
        await eventually(lambda: waiting(platform), bool, seconds=60)
        await platform.replaced(box)
    return await answer


def locked(platform: Platform, delegation_id: str) -> Callable[[], Awaitable[object]]:
    query = "SELECT FROM delegations WHERE delegation_id = %s FOR UPDATE"
    return lambda: rows(platform, query, delegation_id)


@pytest.mark.parametrize("status", ["acked", "completed", "failed"])
async def test_a_report_of_a_target_that_is_replaced_meanwhile_is_not_written(
    platform: Platform, status: str
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
        await platform.close(target)  # not committed yet: the check still reads the box as current

    answer = await replaced_during(platform, target, update(target, delegation, status), holding=superseding)
    assert (answer.status_code, answer.json().get("status")) in {(503, None), (410, None)}
    assert await row(platform, delegation) == before
    assert "processing" not in [kind for _, kind in await platform.events(target)]


async def test_progress_of_a_target_that_is_replaced_meanwhile_is_not_written(platform: Platform) -> None:
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


@pytest.mark.parametrize("status", ["acked", "completed", "failed"])
async def test_a_report_of_a_source_that_is_replaced_meanwhile_is_not_written(
    platform: Platform, status: str
) -> None:
    source, target = await working(platform), await working(platform)
    name = f"own-{status}"
    assert (await record(source, target, name)).status_code == 202
    before = await row(platform, name)
    await replaced_during(platform, source, update(source, name, status), holding=locked(platform, name))
    assert await row(platform, name) == before


@pytest.mark.parametrize("call", ["delegate", "record"])
async def test_a_delegation_of_a_source_that_is_replaced_meanwhile_is_not_written(
    platform: Platform, call: str
) -> None:
    source, target = await working(platform), await working(platform)
    query = "SELECT FROM workspaces WHERE workspace_id = %s FOR UPDATE"
    call_made = delegate(source, target) if call == "delegate" else record(source, target, "overtaken")
    await replaced_during(platform, source, call_made, holding=lambda: platform.rows(query, target))
    assert await made_by(platform, source) == []
