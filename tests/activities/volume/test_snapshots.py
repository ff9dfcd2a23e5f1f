"""Snapshots: at most one in 15 min and one pending, whatever EC2 responds. They never delay a recreate."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest
from psycopg.errors import UniqueViolation

from activities.aws import ebs
from tests.activities.volume.volumes import attach, deleted, with_volume
from tests.activities.world import OWNER, World
from workflows.volume import contract as volume_contract
from workflows.volume import snapshot_policy as rules
from workflows.volume.contract import SnapshotResult
from workflows.workspace import contract as workspace_contract
from workflows.workspace.enums import SnapshotPolicy
from workflows.workspace.messages import DataVolume, WorkspaceSpec

pytestmark = pytest.mark.anyio

SPEC = WorkspaceSpec(data_volume=DataVolume(), snapshot=SnapshotPolicy.RECREATE)
TOO_SOON = "SnapshotCreationPerVolumeRateExceeded"


def wish(world: World, *, generation: int = 1) -> volume_contract.SnapshotVolume:
    return volume_contract.SnapshotVolume(workspace_id=world.workspace_id, generation=generation)


async def snapped(world: World) -> SnapshotResult:
    return await world.run(volume_contract.snapshot_volume, wish(world))


async def earlier(world: World, minutes: float) -> None:
    """Let so much time have passed."""
    for table, column in (("snapshots", "requested_at"), ("volumes", "last_failed_at")):
        await world.rows(
            f"UPDATE {table} SET {column} = {column} - %(by)s * interval '1 min'"
            " WHERE workspace_id = %(workspace_id)s",
            by=minutes,
        )


async def states(world: World) -> list[str]:
    found = await world.rows(
        "SELECT state FROM snapshots WHERE workspace_id = %(workspace_id)s ORDER BY requested_at"
    )
    return [str(one["state"]) for one in found]


def taken(world: World) -> int:
    return world.endpoint.counts(world.workspace_id).snapshots


def asked(world: World) -> int:
    """The number of CreateSnapshot calls, including failed ones."""
    journal = world.endpoint.journal(workspace=world.workspace_id)
    return sum(entry.action == "CreateSnapshot" for entry in journal)


async def test_a_snapshot_has_our_tags_and_covers_the_next_requests(world: World) -> None:
    await with_volume(world, spec=SPEC)
    first = await snapped(world)
    assert first.snapshot_id is not None
    for _ in range(3):
        assert await snapped(world) == SnapshotResult(covered=True)
    assert (taken(world), asked(world)) == (1, 1)
    described = await world.aws.call(world.aws.ec2.describe_snapshots, SnapshotIds=[first.snapshot_id])
    tags = {tag["Key"]: tag["Value"] for tag in described["Snapshots"][0]["Tags"]}
    assert (tags["onebox:owner"], tags["onebox:workspace"]) == (OWNER, world.workspace_id)


async def test_concurrent_requests_create_one_snapshot(world: World) -> None:
    await with_volume(world, spec=SPEC)
    await asyncio.gather(*(snapped(world) for _ in range(6)))
    assert asked(world) == 1


async def test_after_15_minutes_there_is_another_one(world: World) -> None:
    await with_volume(world, spec=SPEC)
    await snapped(world)
    await earlier(world, 14)
    assert (await snapped(world)).covered
    await earlier(world, 1)
    world.endpoint.inject("CreateSnapshot", "error", code=TOO_SOON, status=400, workspace=world.workspace_id)
    assert (await snapped(world)).code == TOO_SOON
    assert await states(world) == ["completed", "lost"]


async def test_a_pending_snapshot_covers_every_request_however_long_it_takes(world: World) -> None:
    _, volume_id = await with_volume(world, spec=SPEC)
    await snapped(world)
    await world.rows(
        "UPDATE snapshots SET state = 'requested', snapshot_id = NULL WHERE workspace_id = %(workspace_id)s"
    )
    # Its tag finds it. The database would reject a second one.
    with pytest.raises(UniqueViolation):
        await world.rows(
            "INSERT INTO snapshots (workspace_id, volume_id, generation)"
            " VALUES (%(workspace_id)s, %(volume_id)s, 1)",
            volume_id=volume_id,
        )
    assert (await snapped(world)).covered
    assert await states(world) == ["completed"]
    assert asked(world) == 1


async def test_a_rejection_is_a_result_and_the_backoff_grows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "INITIAL_BACKOFF", timedelta(seconds=150))  # longer than a slow machine needs
    await with_volume(world, spec=SPEC)
    world.endpoint.inject(
        "CreateSnapshot", "error", code=TOO_SOON, status=400, times=None, workspace=world.workspace_id
    )
    assert (await snapped(world)).code == TOO_SOON
    assert (await snapped(world)).code == "snapshot_backing_off"
    await earlier(world, 3)
    assert (await snapped(world)).code == TOO_SOON
    await earlier(world, 3)
    assert (await snapped(world)).code == "snapshot_backing_off"
    await earlier(world, 3)
    assert (await snapped(world)).code == TOO_SOON
    assert asked(world) == 3
    world.endpoint.clear()
    await earlier(world, 20)
    assert (await snapped(world)).snapshot_id is not None
    [volume] = await world.rows("SELECT * FROM volumes WHERE workspace_id = %(workspace_id)s")
    assert (volume["snapshot_failures"], volume["last_failed_at"]) == (0, None)


async def test_the_snapshot_of_a_lost_response_is_found_by_its_tag(world: World) -> None:
    await with_volume(world, spec=SPEC)
    world.endpoint.inject("CreateSnapshot", "lost_answer", workspace=world.workspace_id)
    error = await world.fails(volume_contract.snapshot_volume, wish(world))
    assert not error.non_retryable
    assert await states(world) == ["requested"]
    assert (await snapped(world)).covered
    assert await states(world) == ["completed"]
    assert asked(world) == 1


async def test_a_call_that_never_had_an_effect_blocks_no_later_snapshot(world: World) -> None:
    await with_volume(world, spec=SPEC)
    world.endpoint.inject("CreateSnapshot", "error", code="InternalError", workspace=world.workspace_id)
    await world.fails(volume_contract.snapshot_volume, wish(world))
    assert (await snapped(world)).covered, "for EC2's lists may be late"
    await earlier(world, 5.1)
    assert (await snapped(world)).snapshot_id is not None
    assert await states(world) == ["lost", "completed"] or await states(world) == [
        "lost",
        "pending",
    ]


async def test_without_a_volume_no_snapshot_is_created(world: World) -> None:
    await world.opened(spec=SPEC)
    assert await snapped(world) == SnapshotResult(covered=True)
    assert asked(world) == 0


async def test_a_late_request_of_an_older_generation_creates_nothing(world: World) -> None:
    await with_volume(world, spec=SPEC)
    await world.opened(after=1)
    assert (
        await world.fails(volume_contract.snapshot_volume, wish(world))
    ).type == workspace_contract.SUPERSEDED
    assert asked(world) == 0


@pytest.mark.parametrize("delete", [False, True])
async def test_snapshots_outlive_the_workspace_unless_its_spec_says_otherwise(
    world: World, delete: bool
) -> None:
    await with_volume(world, spec=SPEC.model_copy(update={"delete_snapshots": delete or None}))
    snapshot_id = (await snapped(world)).snapshot_id
    assert snapshot_id is not None
    await world.run(volume_contract.delete_volume, await deleted(world))
    left = await world.aws.call(ebs.snapshot_by_id, world.aws.ec2, snapshot_id)
    assert (left is None) == delete


async def test_a_snapshot_whose_answer_was_lost_is_deleted_with_the_others(world: World) -> None:
    await with_volume(world, spec=SPEC.model_copy(update={"delete_snapshots": True}))
    world.endpoint.inject("CreateSnapshot", "lost_answer", workspace=world.workspace_id)
    await world.fails(volume_contract.snapshot_volume, wish(world))
    [made] = await world.rows("SELECT snapshot_key FROM snapshots WHERE workspace_id = %(workspace_id)s")
    assert await world.aws.call(ebs.snapshot_by_key, world.aws.ec2, made["snapshot_key"]) is not None  # type: ignore[arg-type]
    await world.run(volume_contract.delete_volume, await deleted(world))
    assert await world.aws.call(ebs.snapshot_by_key, world.aws.ec2, made["snapshot_key"]) is None  # type: ignore[arg-type]
    assert await world.aws.call(ebs.snapshot_by_key, world.aws.ec2, uuid4()) is None


async def test_attaching_again_creates_no_snapshot(world: World) -> None:
    instance_id, _ = await with_volume(world, spec=SPEC)
    await world.run(volume_contract.attach_volume, attach(world, 1, instance_id))
    assert asked(world) == 0
