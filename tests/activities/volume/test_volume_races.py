"""Attaching and detaching that are late, overtaken, or cut short by a kill."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities.aws import ebs
from devstack.console import eventually
from tests.activities.volume.volumes import (
    SPEC,
    attach,
    calls,
    detach,
    fenced,
    holders,
    moves,
    row,
    volumes,
    with_volume,
)
from tests.activities.world import World
from workflows.volume import contract as volume_contract
from workflows.volume.contract import AttachResult

pytestmark = pytest.mark.anyio


async def overtaken(world: World, of_generation_2: Coroutine[Any, Any, object]) -> None:
    """Generation 3 is opened while it waits for EC2; it is refused, then."""
    held = world.endpoint.inject("DescribeVolumes", "hold")
    late = asyncio.create_task(of_generation_2)
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)
    await world.opened(after=2)
    await asyncio.to_thread(world.endpoint.release, held)
    with pytest.raises(ApplicationError, match="not the current one"):
        await late


async def test_a_detaching_that_is_overtaken_while_it_waits_takes_nothing_from_the_newer_box(
    world: World,
) -> None:
    first, _ = await with_volume(world)
    await world.opened(after=1)  # generation 2 waits for the volume of a running box
    await overtaken(world, world.run(volume_contract.detach_volume, detach(world, 2)))
    [volume] = await volumes(world)
    assert holders(volume) == [first]
    assert calls(world, "DetachVolume") == []


async def test_an_attaching_that_is_overtaken_while_it_waits_attaches_nothing(world: World) -> None:
    await with_volume(world)
    await fenced(world)
    await world.run(volume_contract.detach_volume, detach(world, 2))
    second = await world.launched(2)
    await overtaken(world, world.run(volume_contract.attach_volume, attach(world, 2, second)))
    [volume] = await volumes(world)
    assert volume.available


async def test_a_worker_killed_between_attaching_and_recording_never_leaves_the_volume_at_two_boxes(
    world: World,
) -> None:
    first = await world.launched(await world.opened(spec=SPEC))
    held = world.endpoint.inject("AttachVolume", "hold", workspace=world.workspace_id)
    late = asyncio.create_task(world.run(volume_contract.attach_volume, attach(world, 1, first)))
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)  # attached, but not recorded
    assert (await row(world))["attached_instance_id"] == first
    await fenced(world)
    await world.run(volume_contract.detach_volume, detach(world, 2))
    second = await world.launched(2)
    await world.run(volume_contract.attach_volume, attach(world, 2, second))
    await asyncio.to_thread(world.endpoint.release, held)
    result = await late  # it checks again after the delay
    assert result == AttachResult(occupied_by=second)
    assert moves(world) == [("attached", first), ("detached", first), ("attached", second)]
    [volume] = await volumes(world)
    assert holders(volume) == [second]
    assert (await row(world))["attached_instance_id"] == second


async def test_a_volume_at_another_box_is_reported_as_occupied(world: World) -> None:
    _, volume_id = await with_volume(world)
    await fenced(world)
    await world.run(volume_contract.detach_volume, detach(world, 2))
    second, zone = await world.launched(2), str((await row(world))["zone"])
    other = await world.unrecorded_instance(zone=zone)
    await eventually(lambda: asyncio.to_thread(world.states), lambda states: states[other] == "running")
    await world.aws.call(ebs.attach, world.aws.ec2, volume_id, other)
    result = await world.run(volume_contract.attach_volume, attach(world, 2, second))
    assert result == AttachResult(occupied_by=other)
    error = await world.fails(volume_contract.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_in_use", False)
    assert other in error.message
    assert calls(world, "DetachVolume") == [], "what somebody attached elsewhere is theirs to detach"
