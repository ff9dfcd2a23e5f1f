"""The fence: which instances are terminated, kept, confirmed as terminated, or missing."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from activities.aws.instances import Instance, InstanceState
from activities.workspace.fence import FenceSnapshot, PollPolicy, classify
from store.workspace.launches import Launch
from tests.activities.world import OWNER, World
from workflows.workspace import contract

pytestmark = pytest.mark.anyio

ALIVE = ("pending", "running")


async def test_the_old_box_is_terminated_and_confirmed_before_anything_is_launched(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    observed = await world.run(contract.fence_instances, world.fence(2))
    assert observed == contract.FenceObserved(terminated=(old,), alive=(), missing=())
    assert world.states()[old] == "terminated"
    assert (await world.launch_row(1))["terminated_at"] is not None
    assert await world.launched(2) != old
    assert world.endpoint.counts(world.workspace_id).max_unterminated_at_once == 1


def test_fast_terminations_are_seen_at_once_and_slow_ones_polled_seldom() -> None:
    pauses = list(itertools.islice(PollPolicy().pauses(), 7))
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.7, 0.7, 0.7]
    assert list(itertools.islice(PollPolicy(poll=timedelta(milliseconds=20)).pauses(), 2)) == [0.02, 0.02]


async def test_a_second_fence_finds_nothing_left_to_do(world: World) -> None:
    await world.launched(await world.opened())
    await world.opened(after=1)
    await world.run(contract.fence_instances, world.fence(2))
    again = await world.run(contract.fence_instances, world.fence(2))
    assert again == contract.FenceObserved(terminated=(), alive=(), missing=())
    assert world.endpoint.counts(world.workspace_id).terminations == 1


async def test_an_unrecorded_box_of_the_kept_attempt_stays_and_is_adopted(world: World) -> None:
    await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(1))
    await world.run(contract.fence_instances, world.fence(1))
    result = await world.run(contract.launch, world.launch(1))
    assert result.adopted
    assert world.launches == 1
    (row,) = await world.rows("SELECT instance_id FROM generations WHERE workspace_id = %(workspace_id)s")
    assert row["instance_id"] == result.instance_id


async def test_a_late_fence_never_touches_the_box_of_a_newer_generation(world: World) -> None:
    await world.opened()
    await world.opened(after=1)
    newer = await world.launched(2)
    error = await world.fails(contract.fence_instances, world.fence(1, keep_attempt=None))
    assert error.type == contract.SUPERSEDED
    assert world.states()[newer] in ALIVE


async def test_a_box_that_the_list_does_not_show_is_missing_and_not_gone(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    fault = world.endpoint.inject("DescribeInstances", "empty_list", times=None)
    observed = await world.run(contract.fence_instances, world.fence(2))
    assert (observed.terminated, observed.alive) == ((), ())
    assert [missing.key for missing in observed.missing] == [old]
    assert observed.missing[0].launched_at == (await world.launch_row(1))["requested_at"]
    world.endpoint.release(fault)
    assert (await world.run(contract.fence_instances, world.fence(2))).terminated == (old,)


async def test_a_launch_without_an_answer_is_missing_until_its_box_is_found(world: World) -> None:
    await world.opened()
    world.endpoint.inject("RunInstances", "lost_answer", workspace=world.workspace_id)
    await world.fails(contract.launch, world.launch(1))
    (lost,) = world.states()
    await world.opened(after=1)
    fault = world.endpoint.inject("DescribeInstances", "empty_list", times=None)
    observed = await world.run(contract.fence_instances, world.fence(2))
    assert [missing.key for missing in observed.missing] == ["launch-1-1"]
    world.endpoint.release(fault)
    found = await world.run(contract.fence_instances, world.fence(2))
    assert found == contract.FenceObserved(terminated=(lost,), alive=(), missing=())


async def test_an_instance_proven_gone_is_not_checked_again(world: World) -> None:
    await world.opened()
    world.endpoint.inject("RunInstances", "error", code="InternalError", status=500)
    await world.fails(contract.launch, world.launch(1))
    await world.opened(after=1)
    assert len((await world.run(contract.fence_instances, world.fence(2))).missing) == 1
    proven = world.fence(2, proven_gone=("launch-1-1",))
    for _ in range(2):
        assert (await world.run(contract.fence_instances, proven)).missing == ()
    assert (await world.launch_row(1))["declared_dead"] is False
    await world.launched(2)


async def test_a_box_declared_dead_is_not_waited_for_though_ec2_shows_it_alive(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    observed = await world.run(contract.fence_instances, world.fence(2, declared_dead=(old,)))
    assert observed == contract.FenceObserved(terminated=(), alive=(), missing=())
    assert (await world.launch_row(1))["declared_dead"] is True
    assert await world.launched(2) != old, "the launch does not count it as an orphan either"


async def test_an_unrecorded_instance_is_terminated_and_one_of_another_owner_stays(world: World) -> None:
    await world.opened()
    ours = await world.unrecorded_instance(generation=0)
    theirs = await world.unrecorded_instance(owner="somebody-else", generation=0)
    observed = await world.run(contract.fence_instances, world.fence(1))
    assert observed == contract.FenceObserved(terminated=(ours,), alive=(), missing=())
    assert world.states()[theirs] in ALIVE


async def test_a_box_that_does_not_end_is_reported_alive(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    observed = await world.with_one_poll().run(contract.fence_instances, world.fence(2))
    assert observed == contract.FenceObserved(terminated=(), alive=(old,), missing=())
    assert (await world.launch_row(1))["terminated_at"] is None
    assert (await world.run(contract.launch, world.launch(2))).orphan_instances == (old,)


async def test_a_protected_box_does_not_keep_another_one_alive_and_has_a_hint(world: World) -> None:
    await world.launched(await world.opened())
    await world.unrecorded_instance(generation=0)
    await world.opened(after=1)
    world.endpoint.inject("TerminateInstances", "error", code="OperationNotPermitted", status=400, times=1)
    error = await world.fails(contract.fence_instances, world.fence(2))
    assert (error.type, error.details[1]) == ("OperationNotPermitted", contract.REFUSED)
    assert sorted(state in ALIVE for state in world.states().values()) == [False, True]
    observed = await world.run(contract.fence_instances, world.fence(2))  # the protection was removed
    assert (observed.alive, observed.missing) == ((), ())
    assert set(world.states().values()) == {"terminated"}


async def test_a_lost_answer_of_a_termination_changes_nothing(world: World) -> None:
    old = await world.launched(await world.opened())
    await world.opened(after=1)
    world.endpoint.inject("TerminateInstances", "lost_answer")
    assert (await world.fails(contract.fence_instances, world.fence(2))).type == "aws_unreachable"
    assert (await world.run(contract.fence_instances, world.fence(2))).terminated == (old,)


# Classification, without servers.

AT = datetime(2026, 6, 11, 22, 19, tzinfo=UTC)
REQUEST = contract.FenceInstances(
    workspace_id="ws", generation=5, keep_attempt=2, declared_dead=(), proven_gone=()
)


def instance(
    name: str,
    number: tuple[int, int],
    *,
    state: InstanceState = InstanceState.RUNNING,
    owner: str | None = OWNER,
    after: int = 0,
) -> Instance:
    return Instance(
        instance_id=name,
        state=state,
        private_ip=None,
        owner=owner,
        generation=number[0],
        attempt=number[1],
        launched_at=AT + timedelta(seconds=after),
        state_reason="",
    )


def launch(number: tuple[int, int], instance_id: str | None = None) -> Launch:
    return Launch(
        workspace_id="ws",
        generation=number[0],
        attempt=number[1],
        client_token="t",
        request={},
        user_data="",
        prepared_at=AT,
        requested_at=AT,
        instance_id=instance_id,
        private_ip=None,
        capacity_error=None,
    )


def classified(
    *listed: Instance, launches: tuple[Launch, ...] = (), request: contract.FenceInstances = REQUEST
) -> FenceSnapshot:
    return classify(request, listed, unsettled=launches, owner=OWNER)


def terminated_ids(snapshot: FenceSnapshot) -> set[str]:
    return {one.instance_id for one in snapshot.to_terminate}


def test_only_older_launches_are_terminated() -> None:
    numbers = [(0, 0), (4, 9), (5, 1), (5, 2), (5, 3)]
    assert terminated_ids(classified(*(instance(f"i-{g}-{a}", (g, a)) for g, a in numbers))) == {
        "i-0-0",
        "i-4-9",
        "i-5-1",
    }


def test_a_generation_that_postgresql_does_not_know_is_reported_and_not_touched() -> None:
    snapshot = classified(instance("i-6", (6, 1)))
    assert [one.instance_id for one in snapshot.to_keep] == ["i-6"]
    assert not snapshot.to_terminate


def test_without_an_attempt_to_keep_the_whole_generation_is_terminated() -> None:
    request = replace(REQUEST, keep_attempt=None)
    snapshot = classified(
        instance("i-5-2", (5, 2)), instance("i-5-9", (5, 9)), instance("i-6", (6, 1)), request=request
    )
    assert terminated_ids(snapshot) == {"i-5-2", "i-5-9"}


def test_of_two_boxes_of_the_kept_attempt_the_recorded_one_stays() -> None:
    snapshot = classified(
        instance("i-a", (5, 2)), instance("i-b", (5, 2), after=9), launches=(launch((5, 2), "i-b"),)
    )
    assert terminated_ids(snapshot) == {"i-a"}


def test_of_two_boxes_of_the_kept_attempt_the_oldest_stays_if_none_is_recorded() -> None:
    assert terminated_ids(classified(instance("i-b", (5, 2), after=9), instance("i-a", (5, 2)))) == {"i-b"}


@pytest.mark.parametrize("state", sorted(set(InstanceState) - {InstanceState.TERMINATED}))
def test_every_state_but_terminated_is_alive(state: InstanceState) -> None:
    assert terminated_ids(classified(instance("i-a", (4, 1), state=state))) == {"i-a"}


def test_a_recorded_box_whose_tags_are_not_there_yet_is_known_by_its_id() -> None:
    snapshot = classified(instance("i-a", (0, 0), owner=None), launches=(launch((5, 2), "i-a"),))
    assert not snapshot.to_terminate
    assert terminated_ids(
        classified(instance("i-a", (0, 0), owner=None), launches=(launch((4, 1), "i-a"),))
    ) == {"i-a"}


def test_a_recorded_box_with_the_tag_of_another_owner_is_reported_and_not_touched() -> None:
    snapshot = classified(instance("i-a", (4, 1), owner="other"), launches=(launch((4, 1), "i-a"),))
    assert [one.instance_id for one in snapshot.to_keep] == ["i-a"]
    assert not snapshot.to_terminate


def test_the_kept_launch_is_never_missing_and_a_newer_one_neither() -> None:
    snapshot = classified(launches=(launch((4, 1)), launch((5, 2)), launch((5, 3), "i-c")))
    assert [one.key for one in snapshot.missing] == ["launch-4-1"]
