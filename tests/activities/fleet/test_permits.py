"""Fleet permits: the concurrency limit, the circuit breaker, and failures of EC2 and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from temporalio.testing import ActivityEnvironment

from activities.fleet import health
from activities.fleet.health import FleetConfig
from store.db.pool import open_pool
from tests.activities.world import World
from tests.database import patient_pool, patiently_migrate
from workflows.fleet import contract as fleet_contract
from workflows.fleet.rules import CAPACITY_RETRY_AFTER, FREEZE_DURATION, FleetPolicy

pytestmark = pytest.mark.anyio

POLICY = FleetPolicy(freeze_min_workspaces=1_000, min_concurrent_recreates=2, max_concurrent_recreates=2)
"""Two permits at once. A small fleet never freezes."""


@pytest.fixture(scope="module")
async def fleet_url(database_url: str, anyio_backend: str) -> str:
    """A separate database: the counts must not include boxes of other tests."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(sql.SQL("CREATE DATABASE permits"))
    url = database_url.rpartition("/")[0] + "/permits"
    await patiently_migrate(url)
    return url


@pytest.fixture
async def worlds(world: World, fleet_url: str) -> AsyncIterator[list[World]]:
    """Three workspaces of a small fleet, each with an open generation."""
    async with patient_pool(fleet_url, maximum=4) as pool:
        async with pool.connection() as conn:
            await conn.execute(
                "TRUNCATE workspaces, workspace_outbox, heartbeat_intake, fleet_stale_events CASCADE"
            )
        config = replace(world.config, fleet=FleetConfig(policy=POLICY))
        names = [f"{world.workspace_id}-{letter}" for letter in "abc"]
        three = [replace(world, workspace_id=name, pool=pool, config=config) for name in names]
        for each in three:
            await each.opened()
        yield three


async def fleet_permit(world: World) -> fleet_contract.FleetPermit:
    return await world.run(
        fleet_contract.request_fleet_permit,
        fleet_contract.RequestFleetPermit(workspace_id=world.workspace_id, generation=2),
    )


async def test_permits_are_granted_up_to_the_limit_and_then_refused_for_a_moment(
    worlds: list[World],
) -> None:
    first, second, third = worlds
    assert await fleet_permit(first) == fleet_contract.FleetPermit(granted=True)
    assert await fleet_permit(second) == fleet_contract.FleetPermit(granted=True)
    permit = await fleet_permit(third)
    assert (permit.granted, permit.frozen, permit.retry_after) == (False, False, CAPACITY_RETRY_AFTER)
    assert "2 automatic recreates are in progress" in permit.reason


async def test_a_retry_gets_the_same_permit(worlds: list[World]) -> None:
    first, second, _ = worlds
    for _ in range(3):
        assert (await fleet_permit(first)).granted
    assert (await fleet_permit(second)).granted


async def test_three_concurrent_requests_get_two_permits(worlds: list[World]) -> None:
    permits = await asyncio.gather(*map(fleet_permit, worlds))
    assert sorted(permit.granted for permit in permits) == [False, True, True]


async def test_a_permit_is_free_again_once_the_new_box_is_online(worlds: list[World]) -> None:
    first, second, third = worlds
    assert (await fleet_permit(first)).granted
    assert (await fleet_permit(second)).granted
    await first.opened(after=1)
    assert not (await fleet_permit(third)).granted
    await first.rows("UPDATE workspaces SET phase = 'online' WHERE workspace_id = %(workspace_id)s")
    assert (await fleet_permit(third)).granted


async def test_too_many_stale_workspaces_freeze_the_fleet(worlds: list[World]) -> None:
    strict = replace(worlds[0].config, fleet=FleetConfig(policy=replace(POLICY, freeze_min_workspaces=3)))
    await worlds[1].rows("UPDATE heartbeats SET stale_since = now() WHERE workspace_id = %(workspace_id)s")
    permit = await fleet_permit(worlds[0].with_config(strict))
    assert (permit.granted, permit.frozen, permit.retry_after) == (False, True, FREEZE_DURATION)
    assert "1 of 3 workspaces are stale" in permit.reason
    assert await worlds[0].rows("SELECT FROM recreate_permits") == []
    await worlds[1].rows("UPDATE heartbeats SET stale_since = NULL WHERE workspace_id = %(workspace_id)s")
    assert "have until" in (await fleet_permit(worlds[0].with_config(strict))).reason
    await worlds[1].rows("UPDATE fleet_stale_events SET seen_at = now() - %(ago)s", ago=POLICY.stale)
    assert (await fleet_permit(worlds[0].with_config(strict))).granted


async def test_the_fleet_is_frozen_while_heartbeats_cannot_be_stored_and_just_after(
    worlds: list[World],
) -> None:
    stale = POLICY.stale
    await worlds[0].rows("INSERT INTO heartbeat_intake (last_seen_at) VALUES (now() - %(ago)s)", ago=stale)
    permit = await fleet_permit(worlds[0])
    assert (permit.granted, permit.frozen) == (False, True)
    assert "no heartbeats have been accepted since" in permit.reason
    await worlds[0].rows("UPDATE heartbeat_intake SET last_seen_at = now(), gapless_since = now()")
    assert "accepted again" in (await fleet_permit(worlds[0])).reason
    await worlds[0].rows(
        "UPDATE heartbeat_intake SET gapless_since = now() - %(ago)s", ago=stale + timedelta(seconds=1)
    )
    assert (await fleet_permit(worlds[0])).granted


@pytest.mark.parametrize("fault", ["error", "lost_answer"])
async def test_the_fleet_is_frozen_while_ec2_cannot_be_read(worlds: list[World], fault: str) -> None:
    worlds[0].endpoint.inject("DescribeInstances", fault, code="UnauthorizedOperation")
    permit = await fleet_permit(worlds[0])
    assert (permit.granted, permit.frozen, permit.retry_after) == (False, True, FREEZE_DURATION)
    assert "EC2 cannot be" in permit.reason


async def test_one_check_of_ec2_serves_concurrent_requests(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EC2_CHECK_TTL", timedelta(minutes=5))  # longer than a slow machine needs
    delays = worlds[0].endpoint.inject("DescribeInstances", "delay", seconds=0.05, times=None)
    request_permit = worlds[0].implementation(fleet_contract.request_fleet_permit)
    requests = [
        fleet_contract.RequestFleetPermit(workspace_id=each.workspace_id, generation=2) for each in worlds
    ]
    await asyncio.gather(*(ActivityEnvironment().run(request_permit, request) for request in requests))
    assert worlds[0].endpoint.fault(delays).used == 1


async def test_an_unavailable_database_is_a_retryable_error(worlds: list[World]) -> None:
    async with open_pool(
        "postgresql://onebox@127.0.0.1:1/none", checkout_timeout=timedelta(seconds=0.2)
    ) as pool:
        error = await replace(worlds[0], pool=pool).fails(
            fleet_contract.request_fleet_permit,
            fleet_contract.RequestFleetPermit(workspace_id="ws", generation=2),
        )
    assert (error.type, error.non_retryable) == ("database_unavailable", False)
