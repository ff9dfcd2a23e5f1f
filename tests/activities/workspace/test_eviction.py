"""Eviction terminates superseded boxes that still call, and no other instance."""

import pytest

from tests.activities.world import World
from workflows.workspace import contract

pytestmark = pytest.mark.anyio


def evict(world: World, generation: int) -> contract.Evict:
    return contract.Evict(workspace_id=world.workspace_id, generation=generation)


async def test_a_box_that_was_declared_dead_and_came_back_is_terminated(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    held = world.endpoint.inject("TerminateInstances", "error", code="InternalError", times=None)
    await world.fails(contract.fence_instances, world.fence(2))
    world.endpoint.clear()
    await world.run(contract.fence_instances, world.fence(2, declared_dead=(old,)))
    assert held
    assert world.states()[old] in ("pending", "running")
    current = await world.launched(2)

    assert await world.run(contract.evict, evict(world, 1)) == contract.Evicted(instances=(old,))
    assert world.states()[old] in ("shutting-down", "terminated")
    assert world.states()[current] in ("pending", "running")


async def test_an_unrecorded_box_of_the_generation_is_terminated_and_other_owners_are_not(
    world: World,
) -> None:
    await world.opened()
    await world.opened(after=1)
    current = await world.launched(2)
    ours, theirs = (
        await world.unrecorded_instance(),
        await world.unrecorded_instance(owner="another-control-plane"),
    )
    assert await world.run(contract.evict, evict(world, 1)) == contract.Evicted(instances=(ours,))
    assert world.states()[theirs] in ("pending", "running")
    assert world.states()[current] in ("pending", "running")


async def test_the_current_generation_is_never_evicted(world: World) -> None:
    current = await world.launched(await world.opened())
    assert await world.run(contract.evict, evict(world, 1)) == contract.Evicted(instances=())
    assert world.states()[current] in ("pending", "running")


async def test_a_second_eviction_finds_nothing_left(world: World) -> None:
    await world.launched(await world.opened())
    await world.opened(after=1)
    await world.run(contract.evict, evict(world, 1))
    await world.run(contract.fence_instances, world.fence(2))
    assert await world.run(contract.evict, evict(world, 1)) == contract.Evicted(instances=())
