"""The orphan sweep on real parts: what it lists, what it remembers and reports, and what it ends."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from activities.aws import instances
from activities.aws.instances import PROTECT_TAG
from tests.activities.orphans.sweeping import (
    ALIVE,
    PASSES,
    deleted,
    end,
    events,
    of_plane,
    planted,
    protect,
    run_pass,
    verdicts,
    with_policy,
)
from tests.activities.world import World
from tests.database import patient_pool, patiently_migrate
from workflows.orphans import contract as orphans_contract
from workflows.orphans.rules import OrphanAction
from workflows.workspace import contract
from workflows.workspace import contract as workspace_contract

pytestmark = pytest.mark.anyio


async def test_an_orphan_is_reported_the_second_time_and_the_rest_is_left(swept: World) -> None:
    await swept.launched(await swept.opened())
    await swept.opened(after=1)
    await swept.run(workspace_contract.fence_instances, swept.fence(2))
    box = await swept.launched(2)
    old, kept = await planted(swept), await planted(swept)
    await protect(swept, kept)
    foreign = await swept.unrecorded_instance(owner="another-control-plane")

    first = verdicts(await run_pass(swept))
    assert (first[old], first[kept]) == (OrphanAction.SEEN_ONCE, OrphanAction.PROTECTED)
    assert await events(swept) == []
    second = await run_pass(swept)
    assert verdicts(second)[old] is OrphanAction.ORPHAN
    assert {"kind": "orphan", "generation": 1, "detail": old} in await events(swept)
    assert not {box, foreign} & set(verdicts(second))
    assert second.actions[OrphanAction.CLAIMED] == 1
    assert kept not in {event["detail"] for event in await events(swept)}
    assert verdicts(await run_pass(swept))[old] is OrphanAction.IN_HAND
    listed = (old, kept, box, foreign)
    assert all(swept.states()[one] in ALIVE for one in listed), "a run_pass ends nothing"


async def test_a_pass_that_is_repeated_counts_once(swept: World) -> None:
    await swept.opened()
    old = await planted(swept, generation=0)
    for _ in range(3):
        assert verdicts(await run_pass(swept, pass_id="the same")) == {old: OrphanAction.SEEN_ONCE}
    assert await events(swept) == []


async def test_a_box_that_is_claimed_between_two_passes_starts_over(swept: World) -> None:
    await swept.opened()
    lost = await planted(swept, generation=1)
    await run_pass(swept)
    await swept.rows(
        "UPDATE generations SET instance_id = %(box)s WHERE workspace_id = %(workspace_id)s", box=lost
    )
    assert verdicts(await run_pass(swept)) == {}
    await swept.rows("UPDATE generations SET instance_id = NULL WHERE workspace_id = %(workspace_id)s")
    assert verdicts(await run_pass(swept)) == {lost: OrphanAction.SEEN_ONCE}


async def test_the_instance_of_a_lost_response_is_reported_and_adopted_and_never_terminated(
    swept: World,
) -> None:
    await swept.opened()
    swept.endpoint.inject("RunInstances", "lost_answer", workspace=swept.workspace_id)
    await swept.fails(workspace_contract.launch, swept.launch(1))
    [box] = swept.states()
    await run_pass(swept)
    assert verdicts(await run_pass(swept)) == {box: OrphanAction.UNRECORDED_INSTANCE}
    assert await events(swept) == [{"kind": "unrecorded_instance", "generation": 1, "detail": box}]
    ended = await swept.run(contract.terminate_orphans, end(swept, box, generation=1))
    assert ended.terminated == ()
    assert (await swept.run(workspace_contract.launch, swept.launch(1))).adopted
    assert verdicts(await run_pass(swept)) == {}
    assert swept.launches == 1


async def test_the_sweep_terminates_orphans_without_a_workflow(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead, unknown = await planted(swept), await planted(swept, f"{swept.workspace_id}-nobody")
    await run_pass(swept)
    assert verdicts(await run_pass(swept)) == {dead: OrphanAction.END, unknown: OrphanAction.END}
    assert await events(swept) == [], "no workflow is there to be told"
    assert (await swept.run(contract.terminate_orphans, end(swept, dead))).terminated == (dead,)
    assert swept.states()[dead] not in ALIVE
    nobody = replace(swept, workspace_id=f"{swept.workspace_id}-nobody")
    assert (await swept.run(contract.terminate_orphans, end(nobody, unknown))).terminated == (unknown,)
    assert nobody.states()[unknown] not in ALIVE
    again = await swept.run(contract.terminate_orphans, end(swept, dead))
    assert (again.instances, again.terminated) == ((dead,), ())


async def test_an_instance_that_is_claimed_since_the_pass_is_not_terminated(swept: World) -> None:
    """Its workspace came onto the record in between: it has a workflow now, which is to decide."""
    other = await replace(swept, workspace_id=f"{swept.workspace_id}-x").opened()
    unknown = await planted(swept)
    await run_pass(swept)
    assert verdicts(await run_pass(swept))[unknown] is OrphanAction.END
    await swept.opened()
    ended = await swept.run(contract.terminate_orphans, end(swept, unknown))
    assert other == 1
    assert ended.terminated == ()
    assert swept.states()[unknown] in ALIVE


async def test_a_protection_that_was_set_since_the_pass_counts(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead = await planted(swept)
    await protect(swept, dead)
    ended = await swept.run(contract.terminate_orphans, end(swept, dead))
    assert (ended.terminated, ended.left) == ((), (f"{dead}: it has the tag {PROTECT_TAG}",))
    assert swept.states()[dead] in ALIVE


async def test_a_workflow_terminates_orphans_of_any_launch_and_nothing_else(swept: World) -> None:
    await swept.launched(await swept.opened())
    await swept.opened(after=1)
    await swept.run(workspace_contract.fence_instances, swept.fence(2))
    box = await swept.launched(2)
    older, second, later = (
        await planted(swept),
        await replace(swept).unrecorded_instance(owner=swept.config.owner, generation=2, attempt=1),
        await replace(swept).unrecorded_instance(owner=swept.config.owner, generation=2, attempt=7),
    )
    ahead, kept = await planted(swept, generation=3), await planted(swept)
    await protect(swept, kept)
    foreign = await swept.unrecorded_instance(owner="another-control-plane")
    asked = (box, older, second, later, ahead, kept, foreign)
    ended = await swept.run(contract.terminate_orphans, end(swept, *asked, generation=2))
    assert ended.instances == asked
    assert set(ended.terminated) == {older, second, later}
    assert {one for one, state in swept.states().items() if state in ALIVE} == {box, ahead, kept, foreign}


async def test_a_late_workflow_terminates_nothing(swept: World) -> None:
    await swept.opened()
    old = await planted(swept, generation=0)
    await swept.opened(after=1)
    error = await swept.fails(contract.terminate_orphans, end(swept, old, generation=1))
    assert error.type == workspace_contract.SUPERSEDED
    assert swept.states()[old] in ALIVE


async def test_a_protected_instance_does_not_keep_the_others_alive(swept: World) -> None:
    await swept.opened()
    orphan_instances = [await planted(swept, generation=0) for _ in range(2)]
    swept.endpoint.inject(
        "TerminateInstances",
        "error",
        code="OperationNotPermitted",
        status=400,
        workspace=swept.workspace_id,
    )
    ended = await swept.run(contract.terminate_orphans, end(swept, *orphan_instances, generation=1))
    assert len(ended.terminated) == 1
    assert len(ended.left) == 1
    assert "protection" in ended.left[0]


async def test_an_empty_or_failed_list_leads_to_nothing(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead = await planted(swept)
    await run_pass(swept)
    swept.endpoint.inject("DescribeInstances", "empty_list")
    empty = await run_pass(swept)
    assert (empty.looked_at, empty.orphans) == (0, ())
    swept.endpoint.inject("DescribeInstances", "error", code="RequestLimitExceeded")
    failed = await swept.fails(
        orphans_contract.find_orphan_instances, orphans_contract.FindOrphans(pass_id=f"pass {next(PASSES)}")
    )
    assert failed.type == "RequestLimitExceeded"
    swept.endpoint.inject("DescribeInstances", "empty_list")
    assert (await swept.run(contract.terminate_orphans, end(swept, dead))).terminated == ()
    assert swept.states()[dead] in ALIVE
    assert verdicts(await run_pass(swept)) == {dead: OrphanAction.END}


async def test_lists_are_read_to_their_last_page(swept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "PAGE_SIZE", 5)
    await swept.opened()
    orphan_instances = {await planted(swept, generation=0) for _ in range(12)}
    found = await run_pass(swept)
    assert (found.looked_at, set(verdicts(found))) == (12, orphan_instances)


async def test_a_pass_acts_up_to_its_limit_and_the_next_one_on_the_rest(swept: World) -> None:
    await swept.opened()
    orphan_instances = {await planted(swept, generation=0) for _ in range(7)}
    await run_pass(swept)
    await run_pass(swept, used=1)
    assert len(await events(swept)) == 4
    await run_pass(swept)
    assert {event["detail"] for event in await events(swept)} == orphan_instances
    assert len(await events(swept)) == 7


async def test_a_dry_run_only_reports(swept: World) -> None:
    dry = with_policy(swept, dry_run=True)
    await dry.opened()
    old = await planted(dry, generation=0)
    await run_pass(dry)
    for _ in range(2):
        found = await run_pass(dry)
        assert (verdicts(found), found.dry_run) == ({old: OrphanAction.ORPHAN}, True)
    assert await events(dry) == []


async def test_two_control_planes_in_one_account_do_not_touch_each_other(
    swept: World, planes: Iterator[str], database_url: str
) -> None:
    """Each has its own database. Account, zone and workspace IDs are the same."""
    name = "other_plane"
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS other_plane")
        conn.execute("CREATE DATABASE other_plane")
    url = f"{database_url.rpartition('/')[0]}/{name}"
    await patiently_migrate(url)
    async with patient_pool(url, maximum=2) as pool:
        other = of_plane(replace(swept, pool=pool), next(planes))
        mine, theirs = await swept.launched(await swept.opened()), await other.launched(await other.opened())
        my_orphan, their_orphan = await planted(swept, generation=0), await planted(other, generation=0)
        only_theirs = await planted(other, f"{swept.workspace_id}-theirs")
        for world in (swept, other):
            await run_pass(world)
        assert verdicts(await run_pass(swept)) == {my_orphan: OrphanAction.ORPHAN}
        assert verdicts(await run_pass(other)) == {
            their_orphan: OrphanAction.ORPHAN,
            only_theirs: OrphanAction.END,
        }
        everything = (mine, theirs, my_orphan, their_orphan)
        assert (
            await swept.run(contract.terminate_orphans, end(swept, *everything, generation=1))
        ).terminated == (my_orphan,)
        assert {one for one, state in swept.states().items() if state in ALIVE} == {
            mine,
            theirs,
            their_orphan,
        }
