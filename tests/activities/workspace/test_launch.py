"""One instance per launch, despite lost responses and late lists."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from activities.user_data.render import PLACEHOLDER
from activities.workspace.launch import client_token
from store.registration.credentials import ServerKeys
from tests.activities.world import KEYS, OWNER, World
from workflows.workspace import contract
from workflows.workspace.enums import Intent
from workflows.workspace.messages import WorkspaceSpec

pytestmark = pytest.mark.anyio


def launch_tags(world: World, instance_id: str) -> dict[str, str]:
    (view,) = [one for one in world.endpoint.instances(world.workspace_id) if one.instance_id == instance_id]
    return view.tags


async def test_a_launch_is_made_once_however_often_it_is_retried(world: World) -> None:
    generation = await world.opened()
    first = await world.run(contract.launch, world.launch(generation))
    assert not first.adopted
    assert await world.run(contract.launch, world.launch(generation)) == first
    assert world.launches == 1
    assert first.instance_id is not None
    assert launch_tags(world, first.instance_id)["onebox:owner"] == OWNER
    (row,) = await world.rows(
        "SELECT instance_id, host(private_ip) AS ip FROM generations WHERE workspace_id = %(workspace_id)s"
    )
    assert (row["instance_id"], row["ip"]) == (first.instance_id, first.private_ip)


async def test_launches_at_once_give_one_instance(world: World) -> None:
    generation = await world.opened()
    results = await asyncio.gather(*(world.run(contract.launch, world.launch(generation)) for _ in range(6)))
    assert len({result.instance_id for result in results}) == 1
    assert world.launches == 1


async def test_the_user_data_carries_the_secret_and_the_record_does_not(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    secret = KEYS.bootstrap_secret(world.workspace_id, generation, key_id="k1")
    row = await world.launch_row(generation)
    assert PLACEHOLDER in str(row["user_data"])
    assert secret not in str(row)
    user_data = await asyncio.to_thread(world.endpoint.user_data, instance_id)
    assert secret in user_data
    assert PLACEHOLDER not in user_data


async def test_a_lost_answer_ends_with_one_instance(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.non_retryable) == ("aws_unreachable", False)
    result = await world.run(contract.launch, world.launch(generation))
    assert result.adopted
    assert world.launches == 1


async def test_a_lost_answer_and_an_empty_list_end_with_one_instance(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None, workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(generation))
    result = await world.run(contract.launch, world.launch(generation))
    assert not result.adopted  # the token found it, not the list
    assert list(world.states()) == [result.instance_id]
    assert world.launches == 1


async def test_settings_that_change_between_two_tries_do_not_change_the_request(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None, workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(generation))
    boxes = replace(world.config.boxes, register_api_url="http://moved.test", instance_types=("m5.large",))
    moved = world.with_config(replace(world.config, boxes=boxes))
    await moved.launched(generation)  # other bytes would be an IdempotentParameterMismatch
    assert world.launches == 1


async def test_a_worker_killed_before_recording_finds_its_instance_again(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    await world.rows("UPDATE launches SET instance_id = NULL WHERE workspace_id = %(workspace_id)s")
    result = await world.run(contract.launch, world.launch(generation))
    assert (result.instance_id, result.adopted) == (instance_id, True)


async def test_a_cancelled_launch_records_what_it_launched(world: World) -> None:
    generation = await world.opened()
    held = world.endpoint.inject("RunInstances", "hold", workspace=world.workspace_id)
    task = asyncio.create_task(world.run(contract.launch, world.launch(generation)))
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)
    task.cancel()
    await asyncio.wait([task], timeout=0.01)
    assert not task.done()
    await asyncio.to_thread(world.endpoint.release, held)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await world.launch_row(generation))["instance_id"] in world.states()


@pytest.mark.parametrize("code", ["InsufficientInstanceCapacity", "Unsupported"])
async def test_a_capacity_error_is_a_result_and_the_next_attempt_goes_elsewhere(
    world: World, code: str
) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "error", code=code, status=500, workspace=world.workspace_id)
    refused = await world.run(contract.launch, world.launch(generation))
    assert (refused.capacity_code, refused.instance_id, refused.offerings) == (code, None, 4)
    again = await world.run(contract.launch, world.launch(generation))
    assert again.capacity_code == code, "an attempt that was refused is not called again"
    assert world.launches == 0
    await world.launched(generation, attempt=2)
    first, second = await world.launch_row(generation, 1), await world.launch_row(generation, 2)
    assert first["request"] != second["request"]
    assert first["client_token"] != second["client_token"]
    assert world.launches == 1


@pytest.fixture
async def remembering(world: World) -> AsyncIterator[World]:
    """A control plane that remembers where EC2 had no room."""
    await world.rows("DELETE FROM unavailable_offerings")
    yield world.with_config(replace(world.config, unavailable_offering_ttl=timedelta(minutes=3)))
    await world.rows("DELETE FROM unavailable_offerings")


async def test_an_offering_without_capacity_is_skipped_for_a_while(remembering: World) -> None:
    other = replace(remembering, workspace_id=f"{remembering.workspace_id}-other")
    for world in (remembering, other):
        assert await world.opened() == 1
    remembering.endpoint.inject(
        "RunInstances", "error", code="InsufficientInstanceCapacity", workspace=remembering.workspace_id
    )
    await remembering.run(contract.launch, remembering.launch(1))
    skipped = await other.run(contract.launch, other.launch(1))
    assert (skipped.capacity_code, skipped.instance_id) == ("InsufficientInstanceCapacity", None)
    assert "the next call is possible after" in skipped.capacity_message
    asked = [entry.action for entry in other.endpoint.journal(workspace=other.workspace_id)]
    assert "RunInstances" not in asked
    assert await other.launched(1, attempt=2), "another zone is another question"
    await other.rows("UPDATE unavailable_offerings SET expires_at = now()")
    third = replace(remembering, workspace_id=f"{remembering.workspace_id}-third")
    await third.opened()
    assert await third.launched(1), "the memory ends"


async def test_a_launch_that_was_sent_before_is_not_skipped(remembering: World) -> None:
    await remembering.opened()
    remembering.endpoint.inject("RunInstances", "lost_answer", workspace=remembering.workspace_id)
    await remembering.fails(contract.launch, remembering.launch(1))
    await remembering.rows(
        "INSERT INTO unavailable_offerings SELECT request->>'InstanceType', request->>'SubnetId',"
        " 'Unsupported',"
        " now() + interval '1 minute' FROM launches WHERE workspace_id = %(workspace_id)s"
    )
    assert await remembering.launched(1) in remembering.states()
    assert remembering.launches == 1


async def test_throttling_says_nothing_about_capacity_and_leaves_nothing_to_prove(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "error", workspace=world.workspace_id)
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.non_retryable) == ("RequestLimitExceeded", False)
    assert error.next_retry_delay is not None
    assert (await world.launch_row(generation))["requested_at"] is None
    await world.launched(generation)


async def test_a_missing_permission_is_refused_and_leaves_nothing_to_prove(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject(
        "RunInstances", "error", code="UnauthorizedOperation", status=403, workspace=world.workspace_id
    )
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.details[1]) == ("UnauthorizedOperation", contract.REFUSED)
    assert "permission" in str(error.details[0])
    observed = await world.run(contract.fence_instances, world.fence(generation, keep_attempt=None))
    assert observed.missing == ()


async def test_a_refusal_after_an_unclear_answer_leaves_the_doubt(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "error", code="InternalError", status=500, times=1)
    error = await world.fails(contract.launch, world.launch(generation))
    assert not error.non_retryable
    world.endpoint.inject("RunInstances", "error", code="UnauthorizedOperation", status=403, times=1)
    await world.fails(contract.launch, world.launch(generation))
    assert (await world.launch_row(generation))["requested_at"] is not None


async def test_a_missing_image_is_refused_with_a_hint(world: World) -> None:
    generation = await world.opened(spec=WorkspaceSpec(image_id="ami-0123456789abcdef0"))
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.details[1]) == ("InvalidAMIID.NotFound", contract.REFUSED)
    assert "image" in str(error.details[0])
    assert world.states() == {}


async def test_a_quota_is_refused_unless_the_token_used_the_last_of_it(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "error", code="VcpuLimitExceeded", status=400)
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.details[1]) == ("VcpuLimitExceeded", contract.REFUSED)
    instance_id = await world.unrecorded_instance(generation=generation, attempt=1)
    world.endpoint.inject("RunInstances", "error", code="VcpuLimitExceeded", status=400)
    world.endpoint.inject("DescribeInstances", "empty_list", times=1, workspace=world.workspace_id)
    result = await world.run(contract.launch, world.launch(generation))
    assert (result.instance_id, result.adopted) == (instance_id, True)


async def test_a_token_whose_instance_has_ended_makes_room_for_the_next_attempt(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject(
        "RunInstances", "error", code="IdempotentInstanceTerminated", status=400, workspace=world.workspace_id
    )
    result = await world.run(contract.launch, world.launch(generation))
    assert result.capacity_code == "IdempotentInstanceTerminated"


async def test_an_instance_that_ended_before_it_was_recorded_is_still_recorded(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(generation))
    (instance_id,) = world.states()
    await asyncio.to_thread(world.endpoint.shutdown, instance_id)
    assert await world.launched(generation) == instance_id
    assert world.launches == 1


async def test_the_same_token_with_other_parameters_is_a_final_error_with_a_hint(world: World) -> None:
    generation = await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None, workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(generation))
    await world.rows("UPDATE launches SET user_data = user_data || '#' WHERE workspace_id = %(workspace_id)s")
    error = await world.fails(contract.launch, world.launch(generation))
    assert (error.type, error.non_retryable) == ("IdempotentParameterMismatch", True)
    assert (await world.launch_row(generation))["requested_at"] is not None, "its instance must be fenced"


async def test_an_unrecorded_instance_stops_the_launch_and_is_not_touched(world: World) -> None:
    generation = await world.opened()
    foreign = await world.unrecorded_instance()
    result = await world.run(contract.launch, world.launch(generation))
    assert result.orphan_instances == (foreign,)
    assert world.states()[foreign] in ("pending", "running")
    assert world.launches == 1


async def test_an_instance_of_another_owner_is_ignored(world: World) -> None:
    generation = await world.opened()
    await world.unrecorded_instance(owner="somebody-else")
    await world.launched(generation)


async def test_an_older_box_on_the_record_stops_the_launch_though_the_list_is_empty(world: World) -> None:
    old = await world.launched(await world.opened())
    generation = await world.opened(after=1)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None, workspace=world.workspace_id)
    result = await world.run(contract.launch, world.launch(generation))
    assert result.orphan_instances == (old,)
    assert world.launches == 1


async def test_an_unresolved_launch_of_an_older_generation_stops_the_launch(world: World) -> None:
    await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(1))
    generation = await world.opened(after=1)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None, workspace=world.workspace_id)
    assert (await world.run(contract.launch, world.launch(generation))).orphan_instances == ("launch-1-1",)


async def test_a_superseded_launch_launches_nothing(world: World) -> None:
    await world.opened()
    await world.opened(after=1)
    error = await world.fails(contract.launch, world.launch(1))
    assert (error.type, error.non_retryable) == (contract.SUPERSEDED, True)
    assert world.launches == 0


async def test_a_late_attempt_launches_nothing_once_there_is_a_newer_one(world: World) -> None:
    generation = await world.opened()
    await world.launched(generation, attempt=2)
    error = await world.fails(contract.launch, world.launch(generation, attempt=1))
    assert error.type == contract.SUPERSEDED
    assert world.launches == 1


async def test_a_launch_in_a_stopped_workspace_launches_nothing(world: World) -> None:
    await world.opened()
    await world.closed(1, intent=Intent.STOP)
    assert (await world.fails(contract.launch, world.launch(1))).type == contract.SUPERSEDED
    assert world.launches == 0


async def test_an_instance_launched_while_the_next_generation_opened_is_left_to_its_fence(
    world: World,
) -> None:
    await world.opened()
    held = world.endpoint.inject("RunInstances", "hold", workspace=world.workspace_id)
    task = asyncio.create_task(world.fails(contract.launch, world.launch(1)))
    await asyncio.to_thread(world.endpoint.wait_until_held, held, seconds=60)
    await world.opened(after=1)
    await asyncio.to_thread(world.endpoint.release, held)
    assert (await task).type == contract.SUPERSEDED
    (instance_id,) = world.states()
    assert (await world.launch_row(1))["instance_id"] == instance_id
    observed = await world.run(contract.fence_instances, world.fence(2))
    assert observed == contract.FenceObserved(terminated=(instance_id,), alive=(), missing=())


async def test_a_generation_whose_key_is_missing_is_a_final_error_with_a_hint(world: World) -> None:
    await world.opened()
    keys = ServerKeys(current="k2", keys={"k2": b"2" * 32})
    error = await replace(world, keys=keys).fails(contract.launch, world.launch(1))
    assert (error.type, error.non_retryable) == ("server_key_missing", True)
    assert "SERVER_KEYS" in str(error.details[0])
    assert (await world.launch_row(1))["requested_at"] is None


def test_a_token_names_owner_workspace_generation_and_attempt_in_64_characters() -> None:
    request = contract.Launch(workspace_id="ws", generation=1, attempt=1)
    tokens = {
        client_token("a", request),
        client_token("b", request),
        client_token("a", replace(request, workspace_id="w")),
        client_token("a", replace(request, generation=2)),
        client_token("a", replace(request, attempt=2)),
    }
    assert len(tokens) == 5
    assert {len(token) for token in tokens} == {64}
    assert client_token("a", request) == client_token("a", request)
