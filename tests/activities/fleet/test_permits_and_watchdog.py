"""Leave for an automatic recreate: what is asked, and what is answered when nothing can be asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql
from temporalio.testing import ActivityEnvironment

from activities.fleet import permits_and_watchdog
from activities.fleet.permits_and_watchdog import FleetConfig
from store.db.pool import open_pool
from tests.activities.world import World
from tests.database import patient_pool, patiently_migrate
from workflows.fleet.rules import CAPACITY_RETRY_AFTER, FREEZE_DURATION, FleetPolicy
from workflows.workspace import contract

pytestmark = pytest.mark.anyio

POLICY = FleetPolicy(freeze_min_workspaces=1_000, min_concurrent_recreates=2, max_concurrent_recreates=2)
"""Two at once, and no share of a small fleet freezes it."""


@pytest.fixture(scope="module")
async def fleet_url(database_url: str, anyio_backend: str) -> str:
    """A database of its own: what other tests do to their boxes is counted in theirs."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute(sql.SQL("CREATE DATABASE consulting"))
    url = database_url.rpartition("/")[0] + "/consulting"
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


async def fleet_permit(world: World) -> contract.FleetPermit:
    return await world.run(
        contract.request_fleet_permit,
        contract.RequestFleetPermit(workspace_id=world.workspace_id, generation=2),
    )


async def test_leave_is_given_while_there_are_places_and_then_refused_for_a_moment(
    worlds: list[World],
) -> None:
    first, second, third = worlds
    assert await fleet_permit(first) == contract.FleetPermit(granted=True)
    assert await fleet_permit(second) == contract.FleetPermit(granted=True)
    permit = await fleet_permit(third)
    assert (permit.granted, permit.frozen, permit.retry_after) == (False, False, CAPACITY_RETRY_AFTER)
    assert "2 automatic recreates are under way" in permit.reason


async def test_a_retry_finds_its_own_place(worlds: list[World]) -> None:
    first, second, _ = worlds
    for _ in range(3):
        assert (await fleet_permit(first)).granted
    assert (await fleet_permit(second)).granted


async def test_three_at_once_get_two_places(worlds: list[World]) -> None:
    words = await asyncio.gather(*map(fleet_permit, worlds))
    assert sorted(permit.granted for permit in words) == [False, True, True]


async def test_a_place_is_free_again_once_the_new_box_is_online(worlds: list[World]) -> None:
    first, second, third = worlds
    assert (await fleet_permit(first)).granted
    assert (await fleet_permit(second)).granted
    await first.opened(after=1)
    assert not (await fleet_permit(third)).granted
    await first.rows("UPDATE workspaces SET phase = 'online' WHERE workspace_id = %(workspace_id)s")
    assert (await fleet_permit(third)).granted


async def test_too_many_stale_ones_freeze_it(worlds: list[World]) -> None:
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


async def test_nothing_begins_while_nobody_takes_beats_in_nor_just_after(worlds: list[World]) -> None:
    stale = POLICY.stale
    await worlds[0].rows("INSERT INTO heartbeat_intake (last_seen_at) VALUES (now() - %(ago)s)", ago=stale)
    permit = await fleet_permit(worlds[0])
    assert (permit.granted, permit.frozen) == (False, True)
    assert "no beats are taken in" in permit.reason
    await worlds[0].rows("UPDATE heartbeat_intake SET last_seen_at = now(), gapless_since = now()")
    assert "taken in again" in (await fleet_permit(worlds[0])).reason
    await worlds[0].rows(
        "UPDATE heartbeat_intake SET gapless_since = now() - %(ago)s", ago=stale + timedelta(seconds=1)
    )
    assert (await fleet_permit(worlds[0])).granted


@pytest.mark.parametrize("fault", ["error", "lost_answer"])
async def test_nothing_begins_while_ec2_cannot_be_read(worlds: list[World], fault: str) -> None:
    worlds[0].endpoint.inject("DescribeInstances", fault, code="UnauthorizedOperation")
    permit = await fleet_permit(worlds[0])
    assert (permit.granted, permit.frozen, permit.retry_after) == (False, True, FREEZE_DURATION)
    assert "EC2 cannot be" in permit.reason


async def test_a_look_at_ec2_serves_all_that_ask_within_seconds(
    worlds: list[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        permits_and_watchdog, "EC2_CHECK_TTL", timedelta(minutes=5)
    )  # they ask within it, however slowly
    looks = worlds[0].endpoint.inject("DescribeInstances", "delay", seconds=0.05, times=None)
    consult = worlds[0].implementation(contract.request_fleet_permit)
    requests = [contract.RequestFleetPermit(workspace_id=each.workspace_id, generation=2) for each in worlds]
    await asyncio.gather(*(ActivityEnvironment().run(consult, request) for request in requests))
    assert worlds[0].endpoint.fault(looks).used == 1


async def test_a_database_that_is_away_is_an_error_that_passes(worlds: list[World]) -> None:
    async with open_pool(
        "postgresql://onebox@127.0.0.1:1/none", checkout_timeout=timedelta(seconds=0.2)
    ) as pool:
        error = await replace(worlds[0], pool=pool).fails(
            contract.request_fleet_permit, contract.RequestFleetPermit(workspace_id="ws", generation=2)
        )
    assert (error.type, error.non_retryable) == ("database_unavailable", False)
