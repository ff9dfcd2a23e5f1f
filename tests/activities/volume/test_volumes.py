"""One data volume per workspace, at one box at a time, despite lost responses and killed workers."""

import asyncio

import pytest

from activities.aws import ebs
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
from workflows.volume.contract import VolumeDetached
from workflows.workspace import contract as workspace_contract
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio


async def test_the_first_box_gets_a_volume_of_the_spec_in_its_own_zone(world: World) -> None:
    opened = await world.opened(spec=SPEC)
    instance_id = await world.launched(opened)
    await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    [volume] = await volumes(world)
    assert holders(volume) == [instance_id]
    described = await world.aws.call(world.aws.ec2.describe_volumes, VolumeIds=[volume.volume_id])
    [one] = described["Volumes"]
    assert (one["Size"], one["VolumeType"], one["Encrypted"]) == (3, "gp3", True)
    instances = await world.aws.call(world.aws.ec2.describe_instances, InstanceIds=[instance_id])
    zone = instances["Reservations"][0]["Instances"][0]["Placement"]["AvailabilityZone"]
    assert (one["AvailabilityZone"], (await row(world))["zone"]) == (zone, zone)
    assert {tag["Key"]: tag["Value"] for tag in one["Tags"]}["onebox:volume"] == "data"


async def test_attachings_at_once_create_one_volume(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    results = await asyncio.gather(
        *(world.run(volume_contract.attach_volume, attach(world, 1, instance_id)) for _ in range(4))
    )
    assert len({result.volume_id for result in results}) == 1
    assert len(await volumes(world)) == 1


@pytest.mark.parametrize("forgotten_tag", [False, True], ids=["by-tag", "by-token"])
async def test_a_lost_answer_of_the_creation_leaves_one_volume(world: World, forgotten_tag: bool) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    error = await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert (error.type, error.non_retryable) == ("aws_unreachable", False)
    [volume] = await volumes(world)
    if forgotten_tag:  # as a list that is late
        tag = [{"Key": "onebox:volume"}]
        await world.aws.call(world.aws.ec2.delete_tags, Resources=[volume.volume_id], Tags=tag)  # type: ignore[arg-type]
    result = await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id == volume.volume_id


async def test_a_volume_is_found_by_its_tags_after_its_token_expired(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    [volume] = await volumes(world)
    await world.rows("UPDATE volumes SET client_token = 'new' WHERE workspace_id = %(workspace_id)s")
    result = await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id == volume.volume_id


async def test_a_lost_answer_of_the_attachment_attaches_once(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("AttachVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert calls(world, "AttachVolume") == [("done", None)]
    assert (await row(world))["attached_instance_id"] == instance_id


async def test_a_rejected_creation_fixes_no_zone(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject(
        "CreateVolume", "error", code="VolumeLimitExceeded", status=400, workspace=world.workspace_id
    )
    error = await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert (error.type, error.non_retryable) == ("VolumeLimitExceeded", True)
    assert await world.rows("SELECT * FROM volumes WHERE workspace_id = %(workspace_id)s") == []


async def test_a_creation_that_may_have_had_an_effect_keeps_its_request(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "error", code="InternalError", workspace=world.workspace_id)
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    before = await row(world)
    world.endpoint.inject(
        "CreateVolume", "error", code="VolumeLimitExceeded", status=400, workspace=world.workspace_id
    )
    await world.fails(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert (await row(world))["request"] == before["request"]


async def test_the_volume_goes_from_box_to_box(world: World) -> None:
    first, volume_id = await with_volume(world)
    await fenced(world)
    assert await world.run(volume_contract.detach_volume, detach(world, 2)) == VolumeDetached(kept=False)
    assert (await row(world))["attached_instance_id"] is None
    second = await world.launched(2)
    result = await world.run(volume_contract.attach_volume, attach(world, 2, second))
    assert result.volume_id == volume_id
    assert moves(world) == [("attached", first), ("detached", first), ("attached", second)]
    assert calls(world, "AttachVolume") == [("done", None)] * 2, "EC2 had nothing to refuse"
    assert calls(world, "DetachVolume") == [], "an instance that has ended lets go by itself"
    assert calls(world, "CreateVolume") == [("done", None)]


async def test_a_resumed_generation_leaves_its_box_the_volume(world: World) -> None:
    instance_id, _ = await with_volume(world)
    assert await world.run(volume_contract.detach_volume, detach(world, 1)) == VolumeDetached(kept=True)
    [volume] = await volumes(world)
    assert holders(volume) == [instance_id]


async def test_only_a_box_that_was_declared_dead_loses_its_volume_by_force(world: World) -> None:
    first, _ = await with_volume(world)
    await world.opened(after=1)
    world.endpoint.inject(
        "TerminateInstances", "error", code="InternalError", times=None, workspace=world.workspace_id
    )
    await world.fails(workspace_contract.fence_instances, world.fence(2))
    error = await world.with_one_poll().fails(volume_contract.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_not_free", False)
    assert [volume for volume in await volumes(world) if volume.available] == []
    await world.run(workspace_contract.fence_instances, world.fence(2, declared_dead=(first,)))
    assert await world.run(volume_contract.detach_volume, detach(world, 2)) == VolumeDetached()
    [volume] = await volumes(world)
    assert volume.available
    forced = [
        entry.parameters.get("Force")
        for entry in world.endpoint.journal(workspace=world.workspace_id)
        if entry.action == "DetachVolume"
    ]
    assert forced == ["false", "true"]


async def test_the_next_box_is_launched_in_the_zone_of_the_volume_only(world: World) -> None:
    subnets = world.endpoint.info().subnet_ids[:3]
    capacity = {"code": "InsufficientInstanceCapacity", "status": 500, "workspace": world.workspace_id}
    world.endpoint.inject("RunInstances", "error", **capacity)  # type: ignore[arg-type]
    spec = SPEC.model_copy(update={"subnet_ids": subnets, "instance_types": ("t3.micro", "t3.small")})
    await world.opened(spec=spec)
    await world.run(workspace_contract.launch, world.launch(1))
    instance_id = await world.launched(1, attempt=2)  # in the second zone
    await world.run(volume_contract.attach_volume, attach(world, 1, instance_id, attempt=2))
    await fenced(world)
    world.endpoint.inject("RunInstances", "error", **capacity)  # type: ignore[arg-type]
    refused = await world.run(workspace_contract.launch, world.launch(2))
    assert (refused.capacity_code, refused.offerings) == ("InsufficientInstanceCapacity", 2)
    await world.launched(2, attempt=2)
    requests = [(await world.launch_row(2, attempt))["request"] for attempt in (1, 2)]
    assert [(it["SubnetId"], it["InstanceType"]) for it in requests if isinstance(it, dict)] == [
        (subnets[1], "t3.micro"),
        (subnets[1], "t3.small"),
    ]


async def test_without_a_subnet_in_the_zone_of_the_volume_the_launch_fails_with_a_hint(
    world: World,
) -> None:
    subnets = world.endpoint.info().subnet_ids
    await with_volume(world, spec=SPEC.model_copy(update={"subnet_ids": subnets[:1]}))
    await world.enrolled(SPEC.model_copy(update={"subnet_ids": subnets[1:3]}))
    await fenced(world)
    error = await world.fails(workspace_contract.launch, world.launch(2))
    assert (error.type, error.non_retryable) == ("no_subnet_in_zone", True)
    assert str((await row(world))["zone"]) in error.message
    assert world.launches == 1


async def test_a_spec_without_the_volume_does_not_remove_it(world: World) -> None:
    await with_volume(world)
    await world.enrolled(WorkspaceSpec(runtime_port=9000))
    await world.enrolled()
    opened = await world.run(
        workspace_contract.open_generation,
        workspace_contract.OpenGeneration(workspace_id=world.workspace_id, after=1),
    )
    assert opened.has_volume
    again = await world.run(
        workspace_contract.open_generation,
        workspace_contract.OpenGeneration(workspace_id=world.workspace_id, after=1),
    )
    assert again == opened


async def test_a_resumed_generation_without_a_volume_gets_none(
    world: World,
) -> None:
    await world.opened()
    assert not (await world.enrolled(SPEC)).has_volume
    opened = await world.run(
        workspace_contract.open_generation,
        workspace_contract.OpenGeneration(workspace_id=world.workspace_id, after=1),
    )
    assert opened.has_volume
    assert (await world.enrolled()).has_volume


async def test_a_lost_volume_is_never_replaced_by_an_empty_one(world: World) -> None:
    _, volume_id = await with_volume(world)
    await fenced(world)
    await world.run(volume_contract.detach_volume, detach(world, 2))
    await world.aws.call(ebs.delete_volume, world.aws.ec2, volume_id)
    error = await world.with_one_poll().fails(volume_contract.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_not_free", False), "a list may be late at first"
    await world.rows(
        "UPDATE volumes SET created_at = now() - interval '6 min' WHERE workspace_id = %(workspace_id)s"
    )
    error = await world.with_one_poll().fails(volume_contract.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_missing", True)
    assert await volumes(world) == []
