"""One data volume for a workspace, at one box at a time, whatever answers are lost and whoever is killed."""

import asyncio
from dataclasses import replace

import pytest
from temporalio.exceptions import ApplicationError

from activities import ebs, ports, volume_ports
from activities.box import onebox_box
from activities.ebs import Volume
from devstack.console import eventually
from tests.activities.world import OWNER, World
from workflows.facts import AttachResult, VolumeDetached
from workflows.messages import DataVolume, VolumeType, WorkspaceSpec
from workflows.state import Intent

pytestmark = pytest.mark.anyio

SPEC = WorkspaceSpec(data_volume=DataVolume(size_gib=3), canary=None)


def attach(world: World, generation: int, instance_id: str, *, attempt: int = 1) -> volume_ports.AttachVolume:
    return volume_ports.AttachVolume(
        workspace_id=world.workspace_id, generation=generation, attempt=attempt, instance_id=instance_id
    )


def detach(world: World, generation: int, *, attempt: int = 1) -> volume_ports.DetachVolume:
    return volume_ports.DetachVolume(workspace_id=world.workspace_id, generation=generation, attempt=attempt)


async def with_volume(world: World, *, spec: WorkspaceSpec = SPEC) -> tuple[str, str]:
    """Generation 1 with its volume: the instance and the volume."""
    instance_id = await world.launched(await world.opened(spec=spec))
    result = await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id is not None
    return instance_id, result.volume_id


async def fenced(world: World, *, after: int = 1) -> int:
    """The next generation, open, with all before it terminated."""
    generation = await world.opened(after=after)
    seen = await world.run(ports.fence_instances, world.fence(generation))
    assert not seen.alive
    return generation


async def volumes(world: World) -> list[Volume]:
    return await world.aws.call(
        ebs.volumes_by_tags, world.aws.ec2, owner=OWNER, workspace_id=world.workspace_id
    )


def holders(volume: Volume) -> list[str]:
    return [one.instance_id for one in volume.attachments]


def calls(world: World, action: str) -> list[tuple[str, str | None]]:
    """The outcome and code of each call."""
    journal = world.endpoint.journal(workspace=world.workspace_id)
    return [(entry.outcome, entry.code) for entry in journal if entry.action == action]


def moves(world: World) -> list[tuple[str, str]]:
    """Who got hold of a volume and who let it go, in order."""
    journal = world.endpoint.journal(workspace=world.workspace_id)
    return [(entry.outcome, entry.instance_ids[0]) for entry in journal if entry.action == "VolumeChange"]


async def row(world: World) -> dict[str, object]:
    [found] = await world.rows("SELECT * FROM volumes WHERE workspace_id = %(workspace_id)s")
    return found


async def test_the_first_box_gets_a_volume_of_the_spec_in_its_own_zone(world: World) -> None:
    opened = await world.opened(spec=SPEC)
    instance_id = await world.launched(opened)
    await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    [volume] = await volumes(world)
    assert holders(volume) == [instance_id]
    described = await world.aws.call(world.aws.ec2.describe_volumes, VolumeIds=[volume.volume_id])
    [one] = described["Volumes"]
    assert (one["Size"], one["VolumeType"], one["Encrypted"]) == (3, "gp3", True)
    instances = await world.aws.call(world.aws.ec2.describe_instances, InstanceIds=[instance_id])
    zone = instances["Reservations"][0]["Instances"][0]["Placement"]["AvailabilityZone"]
    assert (one["AvailabilityZone"], (await row(world))["zone"]) == (zone, zone)
    assert {tag["Key"]: tag["Value"] for tag in one["Tags"]}["onebox:volume"] == "data"


async def test_attaching_is_done_once_however_often_it_is_asked(world: World) -> None:
    instance_id, volume_id = await with_volume(world)
    again = await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert again.volume_id == volume_id
    assert calls(world, "CreateVolume") == calls(world, "AttachVolume") == [("done", None)]


async def test_attachings_at_once_create_one_volume(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    results = await asyncio.gather(
        *(world.run(volume_ports.attach_volume, attach(world, 1, instance_id)) for _ in range(4))
    )
    assert len({result.volume_id for result in results}) == 1
    assert len(await volumes(world)) == 1


@pytest.mark.parametrize("forgotten_tag", [False, True], ids=["by-tag", "by-token"])
async def test_a_lost_answer_of_the_creation_leaves_one_volume(world: World, forgotten_tag: bool) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    error = await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert (error.type, error.non_retryable) == ("aws_unreachable", False)
    [volume] = await volumes(world)
    if forgotten_tag:  # as a list that is late
        tag = [{"Key": "onebox:volume"}]
        await world.aws.call(world.aws.ec2.delete_tags, Resources=[volume.volume_id], Tags=tag)  # type: ignore[arg-type]
    result = await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id == volume.volume_id


async def test_a_volume_is_found_by_its_tags_when_its_token_is_long_forgotten(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    [volume] = await volumes(world)
    await world.rows("UPDATE volumes SET client_token = 'new' WHERE workspace_id = %(workspace_id)s")
    result = await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id == volume.volume_id


async def test_a_lost_answer_of_the_attachment_attaches_once(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("AttachVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert calls(world, "AttachVolume") == [("done", None)]
    assert (await row(world))["attached_to"] == instance_id


async def test_a_refused_creation_pins_no_zone(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject(
        "CreateVolume", "error", code="VolumeLimitExceeded", status=400, workspace=world.workspace_id
    )
    error = await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert (error.type, error.non_retryable) == ("VolumeLimitExceeded", True)
    assert await world.rows("SELECT * FROM volumes WHERE workspace_id = %(workspace_id)s") == []


async def test_a_creation_that_may_have_had_an_effect_keeps_its_request(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "error", code="InternalError", workspace=world.workspace_id)
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    before = await row(world)
    world.endpoint.inject(
        "CreateVolume", "error", code="VolumeLimitExceeded", status=400, workspace=world.workspace_id
    )
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    assert (await row(world))["request"] == before["request"]


async def test_the_volume_goes_from_box_to_box(world: World) -> None:
    first, volume_id = await with_volume(world)
    await fenced(world)
    assert await world.run(volume_ports.detach_volume, detach(world, 2)) == VolumeDetached(kept=False)
    assert (await row(world))["attached_to"] is None
    second = await world.launched(2)
    result = await world.run(volume_ports.attach_volume, attach(world, 2, second))
    assert result.volume_id == volume_id
    assert moves(world) == [("attached", first), ("detached", first), ("attached", second)]
    assert calls(world, "AttachVolume") == [("done", None)] * 2, "EC2 had nothing to refuse"
    assert calls(world, "DetachVolume") == [], "an instance that has ended lets go by itself"
    assert calls(world, "CreateVolume") == [("done", None)]


async def test_a_generation_that_is_taken_up_again_leaves_its_box_the_volume(world: World) -> None:
    instance_id, _ = await with_volume(world)
    assert await world.run(volume_ports.detach_volume, detach(world, 1)) == VolumeDetached(kept=True)
    [volume] = await volumes(world)
    assert holders(volume) == [instance_id]


async def test_only_a_box_that_was_declared_dead_loses_its_volume_by_force(world: World) -> None:
    first, _ = await with_volume(world)
    await world.opened(after=1)
    world.endpoint.inject(
        "TerminateInstances", "error", code="InternalError", times=None, workspace=world.workspace_id
    )
    await world.fails(ports.fence_instances, world.fence(2))
    error = await world.impatient().fails(volume_ports.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_not_free", False)
    assert [volume for volume in await volumes(world) if volume.available] == []
    await world.run(ports.fence_instances, world.fence(2, declared_dead=(first,)))
    assert await world.run(volume_ports.detach_volume, detach(world, 2)) == VolumeDetached()
    [volume] = await volumes(world)
    assert volume.available
    forced = [
        entry.parameters.get("Force")
        for entry in world.endpoint.journal(workspace=world.workspace_id)
        if entry.action == "DetachVolume"
    ]
    assert forced == ["false", "true"]


async def test_a_late_detaching_of_an_older_generation_takes_nothing_from_the_newer_box(
    world: World,
) -> None:
    await with_volume(world)
    await fenced(world)
    await world.run(volume_ports.detach_volume, detach(world, 2))
    second = await world.launched(2)
    await world.run(volume_ports.attach_volume, attach(world, 2, second))
    assert (await world.fails(volume_ports.detach_volume, detach(world, 1))).type == ports.SUPERSEDED
    [volume] = await volumes(world)
    assert holders(volume) == [second]


async def test_a_detaching_that_is_overtaken_while_it_waits_takes_nothing_from_the_newer_box(
    world: World,
) -> None:
    first, _ = await with_volume(world)
    await world.opened(after=1)  # generation 2 waits for the volume of a box that still runs
    held = world.endpoint.inject("DescribeVolumes", "hold")
    late = asyncio.create_task(world.run(volume_ports.detach_volume, detach(world, 2)))
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)
    await world.opened(after=2)
    await asyncio.to_thread(world.endpoint.release, held)
    with pytest.raises(ApplicationError, match="not the current one"):
        await late
    [volume] = await volumes(world)
    assert holders(volume) == [first]
    assert calls(world, "DetachVolume") == []


async def test_a_late_attaching_of_an_older_generation_attaches_nothing(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    await world.opened(after=1)
    assert (
        await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    ).type == ports.SUPERSEDED
    assert await volumes(world) == []


async def test_an_attaching_that_is_overtaken_while_it_waits_attaches_nothing(world: World) -> None:
    await with_volume(world)
    await fenced(world)
    await world.run(volume_ports.detach_volume, detach(world, 2))
    second = await world.launched(2)
    held = world.endpoint.inject("DescribeVolumes", "hold")
    late = asyncio.create_task(world.run(volume_ports.attach_volume, attach(world, 2, second)))
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)
    await world.opened(after=2)
    await asyncio.to_thread(world.endpoint.release, held)
    with pytest.raises(ApplicationError, match="not the current one"):
        await late
    [volume] = await volumes(world)
    assert volume.available


async def test_a_worker_killed_between_attaching_and_recording_never_leaves_the_volume_at_two_boxes(
    world: World,
) -> None:
    first = await world.launched(await world.opened(spec=SPEC))
    held = world.endpoint.inject("AttachVolume", "hold", workspace=world.workspace_id)
    late = asyncio.create_task(world.run(volume_ports.attach_volume, attach(world, 1, first)))
    await asyncio.to_thread(
        world.endpoint.wait_until_held, held, seconds=60
    )  # attached; nobody has heard of it
    assert (await row(world))["attached_to"] == first
    await fenced(world)
    await world.run(volume_ports.detach_volume, detach(world, 2))
    second = await world.launched(2)
    await world.run(volume_ports.attach_volume, attach(world, 2, second))
    await asyncio.to_thread(world.endpoint.release, held)
    result = await late  # however long it was held: it looks again
    assert result == AttachResult(occupied_by=second)
    assert moves(world) == [("attached", first), ("detached", first), ("attached", second)]
    [volume] = await volumes(world)
    assert holders(volume) == [second]
    assert (await row(world))["attached_to"] == second


async def test_a_volume_that_another_box_has_got_hold_of_is_said_to_be_occupied(world: World) -> None:
    _, volume_id = await with_volume(world)
    await fenced(world)
    await world.run(volume_ports.detach_volume, detach(world, 2))
    second, zone = await world.launched(2), str((await row(world))["zone"])
    other = await world.stranger(zone=zone)
    await eventually(lambda: asyncio.to_thread(world.states), lambda states: states[other] == "running")
    await world.aws.call(ebs.attach, world.aws.ec2, volume_id, other)
    result = await world.run(volume_ports.attach_volume, attach(world, 2, second))
    assert result == AttachResult(occupied_by=other)
    error = await world.fails(volume_ports.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_in_use", False)
    assert other in error.message
    assert calls(world, "DetachVolume") == [], "what somebody attached elsewhere is theirs to detach"


async def test_the_next_box_is_launched_in_the_zone_of_the_volume_only(world: World) -> None:
    subnets = world.endpoint.info().subnet_ids[:3]
    capacity = {"code": "InsufficientInstanceCapacity", "status": 500, "workspace": world.workspace_id}
    world.endpoint.inject("RunInstances", "error", **capacity)  # type: ignore[arg-type]
    spec = SPEC.model_copy(update={"subnet_ids": subnets, "instance_types": ("t3.micro", "t3.small")})
    await world.opened(spec=spec)
    await world.run(ports.launch, world.launch(1))
    instance_id = await world.launched(1, attempt=2)  # in the second zone
    await world.run(volume_ports.attach_volume, attach(world, 1, instance_id, attempt=2))
    await fenced(world)
    world.endpoint.inject("RunInstances", "error", **capacity)  # type: ignore[arg-type]
    refused = await world.run(ports.launch, world.launch(2))
    assert (refused.capacity_code, refused.offerings) == ("InsufficientInstanceCapacity", 2)
    await world.launched(2, attempt=2)
    requests = [(await world.launch_row(2, attempt))["request"] for attempt in (1, 2)]
    assert [(it["SubnetId"], it["InstanceType"]) for it in requests if isinstance(it, dict)] == [
        (subnets[1], "t3.micro"),
        (subnets[1], "t3.small"),
    ]


async def test_without_a_subnet_in_the_zone_of_the_volume_nothing_is_launched_and_it_says_so(
    world: World,
) -> None:
    subnets = world.endpoint.info().subnet_ids
    await with_volume(world, spec=SPEC.model_copy(update={"subnet_ids": subnets[:1]}))
    await world.enrolled(SPEC.model_copy(update={"subnet_ids": subnets[1:3]}))
    await fenced(world)
    error = await world.fails(ports.launch, world.launch(2))
    assert (error.type, error.non_retryable) == ("no_subnet_in_zone", True)
    assert str((await row(world))["zone"]) in error.message
    assert world.launches == 1


async def test_a_spec_that_no_longer_names_the_volume_does_not_take_it_away(world: World) -> None:
    await with_volume(world)
    await world.enrolled(WorkspaceSpec(runtime_port=9000))
    await world.enrolled()
    opened = await world.run(
        ports.open_generation, ports.OpenGeneration(workspace_id=world.workspace_id, after=1)
    )
    assert opened.has_volume
    again = await world.run(
        ports.open_generation, ports.OpenGeneration(workspace_id=world.workspace_id, after=1)
    )
    assert again == opened


async def test_a_generation_that_was_opened_without_a_volume_gets_none_when_it_is_taken_up_again(
    world: World,
) -> None:
    await world.opened()
    assert not (await world.enrolled(SPEC)).has_volume
    opened = await world.run(
        ports.open_generation, ports.OpenGeneration(workspace_id=world.workspace_id, after=1)
    )
    assert opened.has_volume
    assert (await world.enrolled()).has_volume


async def test_a_volume_that_is_gone_is_never_replaced_by_an_empty_one(world: World) -> None:
    _, volume_id = await with_volume(world)
    await fenced(world)
    await world.run(volume_ports.detach_volume, detach(world, 2))
    await world.aws.call(ebs.delete_volume, world.aws.ec2, volume_id)
    error = await world.impatient().fails(volume_ports.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_not_free", False), "a list may be late at first"
    await world.rows(
        "UPDATE volumes SET created_at = now() - interval '6 min' WHERE workspace_id = %(workspace_id)s"
    )
    error = await world.impatient().fails(volume_ports.detach_volume, detach(world, 2))
    assert (error.type, error.non_retryable) == ("volume_missing", True)
    assert await volumes(world) == []


# A deleted workspace


async def deleted(world: World) -> volume_ports.DeleteVolume:
    """The workspace closed for good, and its instances gone."""
    await world.closed(1, intent=Intent.DELETE)
    await world.run(ports.fence_instances, world.fence(1, keep_attempt=None))
    return volume_ports.DeleteVolume(workspace_id=world.workspace_id, generation=1)


async def test_a_deletion_takes_the_volume_along_and_can_be_repeated(world: World) -> None:
    await with_volume(world)
    deletion = await deleted(world)
    for _ in range(2):
        await world.run(volume_ports.delete_volume, deletion)
    assert await volumes(world) == []
    assert (await row(world))["deleted_at"] is not None


async def test_a_deletion_that_was_cut_short_is_finished(world: World) -> None:
    await with_volume(world)
    deletion = await deleted(world)
    world.endpoint.inject("DeleteVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_ports.delete_volume, deletion)
    await world.run(volume_ports.delete_volume, deletion)
    assert await volumes(world) == []


async def test_a_workspace_that_runs_keeps_its_volume_whoever_asks(world: World) -> None:
    _, volume_id = await with_volume(world)
    deletion = volume_ports.DeleteVolume(workspace_id=world.workspace_id, generation=1)
    assert (await world.fails(volume_ports.delete_volume, deletion)).type == ports.SUPERSEDED
    assert [volume.volume_id for volume in await volumes(world)] == [volume_id]


async def test_a_volume_whose_creation_was_never_answered_is_deleted_as_well(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_ports.delete_volume, await deleted(world))
    assert await volumes(world) == []


async def test_while_it_is_unclear_whether_there_is_a_volume_the_deletion_is_not_over(world: World) -> None:
    instance_id = await world.launched(await world.opened(spec=SPEC))
    world.endpoint.inject("CreateVolume", "error", code="InternalError", workspace=world.workspace_id)
    await world.fails(volume_ports.attach_volume, attach(world, 1, instance_id))
    deletion = await deleted(world)
    error = await world.fails(volume_ports.delete_volume, deletion)
    assert (error.type, error.non_retryable) == ("volume_unclear", False)
    await world.rows(
        "UPDATE volumes SET called_at = now() - interval '6 min' WHERE workspace_id = %(workspace_id)s"
    )
    await world.run(volume_ports.delete_volume, deletion)


async def test_another_control_planes_volume_of_the_same_workspace_is_left_alone(world: World) -> None:
    other = world.with_config(replace(world.config, owner="another-control-plane"))
    instance_id = await world.launched(await world.opened(spec=SPEC))
    request = ebs.create_volume_request(
        DataVolume(), zone="us-east-1a", owner="another-control-plane", workspace_id=world.workspace_id
    )
    theirs = await world.aws.call(ebs.create_volume, world.aws.ec2, request, "another-token")
    await world.run(volume_ports.attach_volume, attach(world, 1, instance_id))
    await world.run(volume_ports.delete_volume, await deleted(world))
    left = await world.aws.call(
        ebs.volumes_by_tags, world.aws.ec2, owner=other.config.owner, workspace_id=world.workspace_id
    )
    assert [volume.volume_id for volume in left] == [theirs.volume_id]


# Pure


def test_the_box_looks_for_the_device_that_ec2_is_told() -> None:
    assert onebox_box.DEVICE == ebs.DEVICE


def test_a_request_names_what_the_spec_says_and_nothing_else() -> None:
    volume = DataVolume(size_gib=500, type=VolumeType.GP3, iops=6000, throughput_mibps=500, encrypted=False)
    request = ebs.create_volume_request(volume, zone="us-east-1c", owner="me", workspace_id="ws")
    tags = request.pop("TagSpecifications")
    assert request == {
        "AvailabilityZone": "us-east-1c",
        "Size": 500,
        "VolumeType": "gp3",
        "Encrypted": False,
        "Iops": 6000,
        "Throughput": 500,
    }
    assert isinstance(tags, list)
    plain = ebs.create_volume_request(DataVolume(), zone="z", owner="me", workspace_id="ws")
    assert {"Iops", "Throughput"}.isdisjoint(plain)


@pytest.mark.parametrize(
    "members",
    [
        {"size_gib": 0},
        {"size_gib": 16_385},
        {"type": "st1"},
        {"type": "io2"},
        {"type": "io2", "iops": 4000, "size_gib": 3},
        {"type": "gp2", "iops": 4000},
        {"type": "gp3", "iops": 2999},
        {"type": "gp2", "throughput_mibps": 200},
        {"zone": "us-east-1a"},
    ],
)
def test_a_volume_that_ec2_would_not_create_is_refused_with_the_spec(members: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DataVolume.model_validate(members)
