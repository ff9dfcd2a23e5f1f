"""The data volume of a deleted workspace goes along with it, and no other."""

from dataclasses import replace

import pytest

from activities.aws import ebs
from tests.activities.volume.volumes import SPEC, attach, deleted, row, volumes, with_volume
from tests.activities.world import World
from workflows.volume import contract as volume_contract
from workflows.workspace import contract as workspace_contract
from workflows.workspace.messages import DataVolume

pytestmark = pytest.mark.anyio


async def test_a_deletion_takes_the_volume_along_and_can_be_repeated(world: World) -> None:
    await with_volume(world)
    deletion = await deleted(world)
    for _ in range(2):
        await world.run(volume_contract.delete_volume, deletion)
    assert await volumes(world) == []
    assert (await row(world))["deleted_at"] is not None


async def test_a_deletion_that_was_cut_short_is_finished(world: World) -> None:
    await with_volume(world)
    deletion = await deleted(world)
    world.endpoint.inject("DeleteVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_contract.delete_volume, deletion)
    await world.run(volume_contract.delete_volume, deletion)
    assert await volumes(world) == []


async def test_a_running_workspace_keeps_its_volume(world: World) -> None:
    _, volume_id = await with_volume(world)
    deletion = volume_contract.DeleteVolume(workspace_id=world.workspace_id, generation=1)
    assert (await world.fails(volume_contract.delete_volume, deletion)).type == workspace_contract.SUPERSEDED
    assert [volume.volume_id for volume in await volumes(world)] == [volume_id]


async def test_a_volume_whose_creation_got_no_response_is_deleted_as_well(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_contract.delete_volume, await deleted(world))
    assert await volumes(world) == []


async def test_while_it_is_unclear_whether_there_is_a_volume_the_deletion_is_not_over(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "error", code="InternalError", workspace=world.workspace_id)
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    deletion = await deleted(world)
    error = await world.fails(volume_contract.delete_volume, deletion)
    assert (error.type, error.non_retryable) == ("volume_unclear", False)
    await world.rows(
        "UPDATE volumes SET requested_at = now() - interval '6 min' WHERE workspace_id = %(workspace_id)s"
    )
    await world.run(volume_contract.delete_volume, deletion)


async def test_another_control_planes_volume_of_the_same_workspace_is_not_changed(world: World) -> None:
    other = world.with_config(replace(world.config, owner="another-control-plane"))
    instance_id = await world.launched(await world.opened(spec=SPEC))
    request = ebs.create_volume_request(
        DataVolume(), zone="us-east-1a", owner="another-control-plane", workspace_id=world.workspace_id
    )
    theirs = await world.aws.call(ebs.create_volume, world.aws.ec2, request, "another-token")
    await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_contract.delete_volume, await deleted(world))
    left = await world.aws.call(
        ebs.volumes_by_tags, world.aws.ec2, owner=other.config.owner, workspace_id=world.workspace_id
    )
    assert [volume.volume_id for volume in left] == [theirs.volume_id]
