"""Every stub that a workflow sees has one implementation, which takes and gives the same."""

import inspect
from typing import get_type_hints

import pytest

from tests.activities.world import World, name_of
from workflows.delegation import contract as delegation_contract
from workflows.fleet import contract as fleet_contract
from workflows.orphans import contract as orphans_contract
from workflows.repair import contract as repair_contract
from workflows.rollout import contract as rollout_contract
from workflows.shared.names import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.volume import contract as volume_contract
from workflows.workspace import contract as workspace_contract

STUBS = [
    stub
    for module in (
        workspace_contract,
        delegation_contract,
        fleet_contract,
        repair_contract,
        rollout_contract,
        orphans_contract,
        volume_contract,
    )
    for name, stub in vars(module).items()
    if not name.startswith("_") and inspect.iscoroutinefunction(stub)
]

pytestmark = pytest.mark.anyio


def test_the_stubs_are_found() -> None:
    assert len(STUBS) == 26


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.__name__)
async def test_every_stub_has_one_implementation_with_its_types(stub: object, world: World) -> None:
    assert callable(stub)
    implementation = world.implementation(stub)
    assert get_type_hints(implementation) == get_type_hints(stub)
    assert list(inspect.signature(implementation).parameters) == list(inspect.signature(stub).parameters)


async def test_only_the_mutations_of_ec2_are_on_the_rate_limited_queue(world: World) -> None:
    from activities.registry import implementations

    queues = implementations(aws=world.aws, pool=world.pool, keys=world.keys, config=world.config)
    assert set(queues) == {TASK_QUEUE, EC2_TASK_QUEUE, DELEGATIONS_TASK_QUEUE}
    assert {name_of(one) for one in queues[EC2_TASK_QUEUE]} == {
        *("terminate_orphans", "evict", "fence_instances", "launch"),
        *("attach_volume", "delete_volume", "detach_volume", "snapshot_volume"),
    }
    assert sum(map(len, queues.values())) == len(STUBS)
