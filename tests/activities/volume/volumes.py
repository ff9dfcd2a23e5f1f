"""What tests of data volumes do and see."""

from activities.aws import ebs
from activities.aws.ebs import Volume
from tests.activities.world import OWNER, World
from workflows.volume import contract as volume_contract
from workflows.workspace import contract as workspace_contract
from workflows.workspace.enums import Intent
from workflows.workspace.messages import DataVolume, WorkspaceSpec

SPEC = WorkspaceSpec(data_volume=DataVolume(size_gib=3), canary=None)


def attach(
    world: World, generation: int, instance_id: str, *, attempt: int = 1
) -> volume_contract.AttachVolume:
    return volume_contract.AttachVolume(
        workspace_id=world.workspace_id, generation=generation, attempt=attempt, instance_id=instance_id
    )


def detach(world: World, generation: int, *, attempt: int = 1) -> volume_contract.DetachVolume:
    return volume_contract.DetachVolume(
        workspace_id=world.workspace_id, generation=generation, attempt=attempt
    )


async def with_volume(world: World, *, spec: WorkspaceSpec = SPEC) -> tuple[str, str]:
    """Generation 1 with its volume: the instance and the volume."""
    instance_id = await world.launched(await world.opened(spec=spec))
    result = await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert result.volume_id is not None
    return instance_id, result.volume_id


async def fenced(world: World, *, after: int = 1) -> int:
    """The next generation, open, with all before it terminated."""
    generation = await world.opened(after=after)
    seen = await world.run(workspace_contract.fence_instances, world.fence(generation))
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


async def deleted(world: World) -> volume_contract.DeleteVolume:
    """Close the workspace for deletion and terminate its instances."""
    await world.closed(1, intent=Intent.DELETE)
    await world.run(workspace_contract.fence_instances, world.fence(1, keep_attempt=None))
    return volume_contract.DeleteVolume(workspace_id=world.workspace_id, generation=1)
