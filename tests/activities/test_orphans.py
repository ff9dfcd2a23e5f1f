"""The orphan sweep on real parts: what it lists, what it remembers and reports, and what it ends."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Literal

import psycopg
import pytest

from activities import inventory, ports, sweep_ports
from activities.dns_records import Claim, companion
from activities.inventory import PROTECT_TAG
from tests.activities.world import World
from tests.database import patient_pool, patiently_migrate
from workflows.orphans import OrphanPolicy, Verdict
from workflows.state import Intent

pytestmark = pytest.mark.anyio

ALIVE = ("pending", "running")
_OWNERS = itertools.count(1)
_PASSES = itertools.count(1)


@pytest.fixture
def planes() -> Iterator[str]:
    """Names of control planes that nobody else is."""
    return (f"plane-{number}" for number in _OWNERS)


@pytest.fixture
def swept(world: World, planes: Iterator[str]) -> World:
    """A workspace of a control plane of its own, whose sweep needs no patience."""
    return of_plane(world, next(planes))


def of_plane(world: World, owner: str, **policy: object) -> World:
    hurried = OrphanPolicy(age=timedelta(), again_after=timedelta(minutes=5))
    return world.with_config(
        replace(world.config, owner=owner, orphans=replace(hurried, **policy))  # type: ignore[arg-type]
    )


def with_policy(world: World, **policy: object) -> World:
    return of_plane(world, world.config.owner, **policy)


async def look(world: World, *, pass_id: str | None = None, used: int = 0) -> sweep_ports.OrphansFound:
    request = sweep_ports.FindOrphans(pass_id=pass_id or f"pass {next(_PASSES)}", used=used)
    return await world.run(sweep_ports.find_orphan_instances, request)


async def look_at_names(world: World) -> sweep_ports.OrphansFound:
    return await world.run(
        sweep_ports.find_orphan_names, sweep_ports.FindOrphans(pass_id=f"pass {next(_PASSES)}")
    )


def verdicts(found: sweep_ports.OrphansFound) -> dict[str, Verdict]:
    return {one.name: one.verdict for one in found.orphans}


async def planted(world: World, workspace_id: str | None = None, *, generation: int = 1) -> str:
    other = replace(world, workspace_id=workspace_id or world.workspace_id)
    return await other.stranger(owner=world.config.owner, generation=generation)


async def protect(world: World, instance_id: str) -> None:
    await world.aws.call(
        world.aws.ec2.create_tags, Resources=[instance_id], Tags=[{"Key": PROTECT_TAG, "Value": ""}]
    )


async def deleted(world: World) -> None:
    await world.closed(1, intent=Intent.DELETE)
    await world.rows("UPDATE workspaces SET deleted_at = now() WHERE workspace_id = %(workspace_id)s")


async def facts(world: World) -> list[dict[str, object]]:
    return await world.rows(
        "SELECT kind, generation, detail FROM facts WHERE workspace_id = %(workspace_id)s ORDER BY fact_id"
    )


def end(world: World, *instances: str, generation: int | None = None) -> sweep_ports.EndOrphans:
    return sweep_ports.EndOrphans(workspace_id=world.workspace_id, instances=instances, generation=generation)


async def test_what_nobody_claims_is_reported_the_second_time_and_the_rest_is_left(swept: World) -> None:
    await swept.launched(await swept.opened())
    await swept.opened(after=1)
    await swept.run(ports.fence_instances, swept.fence(2))
    box = await swept.launched(2)
    old, kept = await planted(swept), await planted(swept)
    await protect(swept, kept)
    foreign = await swept.stranger(owner="another-control-plane")

    first = verdicts(await look(swept))
    assert (first[old], first[kept]) == (Verdict.SEEN_ONCE, Verdict.PROTECTED)
    assert await facts(swept) == []
    second = await look(swept)
    assert verdicts(second)[old] is Verdict.STRAY
    assert {"kind": "stray", "generation": 1, "detail": old} in await facts(swept)
    assert not {box, foreign} & set(verdicts(second))
    assert second.verdicts[Verdict.CLAIMED] == 1
    assert kept not in {fact["detail"] for fact in await facts(swept)}
    assert verdicts(await look(swept))[old] is Verdict.IN_HAND
    listed = (old, kept, box, foreign)
    assert all(swept.states()[one] in ALIVE for one in listed), "a look ends nothing"


async def test_a_pass_that_is_repeated_counts_once(swept: World) -> None:
    await swept.opened()
    old = await planted(swept, generation=0)
    for _ in range(3):
        assert verdicts(await look(swept, pass_id="the same")) == {old: Verdict.SEEN_ONCE}
    assert await facts(swept) == []


async def test_a_box_that_is_claimed_between_two_passes_starts_over(swept: World) -> None:
    await swept.opened()
    lost = await planted(swept, generation=1)
    await look(swept)
    await swept.rows(
        "UPDATE generations SET instance_id = %(box)s WHERE workspace_id = %(workspace_id)s", box=lost
    )
    assert verdicts(await look(swept)) == {}
    await swept.rows("UPDATE generations SET instance_id = NULL WHERE workspace_id = %(workspace_id)s")
    assert verdicts(await look(swept)) == {lost: Verdict.SEEN_ONCE}


async def test_a_young_one_is_left_alone(swept: World) -> None:
    patient = with_policy(swept, age=timedelta(minutes=5))
    await patient.opened()
    old = await planted(patient, generation=0)
    await look(patient)
    assert verdicts(await look(patient)) == {old: Verdict.YOUNG}


async def test_the_launch_whose_answer_was_lost_is_reported_and_adopted_and_never_ended(
    swept: World,
) -> None:
    await swept.opened()
    swept.endpoint.inject("RunInstances", "lost_answer", workspace=swept.workspace_id)
    await swept.fails(ports.launch, swept.launch(1))
    [box] = swept.states()
    await look(swept)
    assert verdicts(await look(swept)) == {box: Verdict.UNCLAIMED}
    assert await facts(swept) == [{"kind": "unclaimed", "generation": 1, "detail": box}]
    ended = await swept.run(sweep_ports.end_orphans, end(swept, box, generation=1))
    assert ended.terminated == ()
    assert (await swept.run(ports.launch, swept.launch(1))).adopted
    assert verdicts(await look(swept)) == {}
    assert swept.launches == 1


async def test_what_no_workflow_can_end_is_the_sweeps_own(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead, unknown = await planted(swept), await planted(swept, f"{swept.workspace_id}-nobody")
    await look(swept)
    assert verdicts(await look(swept)) == {dead: Verdict.END, unknown: Verdict.END}
    assert await facts(swept) == [], "no workflow is there to be told"
    assert (await swept.run(sweep_ports.end_orphans, end(swept, dead))).terminated == (dead,)
    assert swept.states()[dead] not in ALIVE
    nobody = replace(swept, workspace_id=f"{swept.workspace_id}-nobody")
    assert (await swept.run(sweep_ports.end_orphans, end(nobody, unknown))).terminated == (unknown,)
    assert nobody.states()[unknown] not in ALIVE
    again = await swept.run(sweep_ports.end_orphans, end(swept, dead))
    assert (again.instances, again.terminated) == ((dead,), ())


async def test_what_is_claimed_since_the_look_is_not_ended(swept: World) -> None:
    """Its workspace came onto the record in between: it has a workflow now, which is to decide."""
    other = await replace(swept, workspace_id=f"{swept.workspace_id}-x").opened()
    unknown = await planted(swept)
    await look(swept)
    assert verdicts(await look(swept))[unknown] is Verdict.END
    await swept.opened()
    ended = await swept.run(sweep_ports.end_orphans, end(swept, unknown))
    assert other == 1
    assert ended.terminated == ()
    assert swept.states()[unknown] in ALIVE


async def test_a_protection_that_came_since_the_look_counts(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead = await planted(swept)
    await protect(swept, dead)
    ended = await swept.run(sweep_ports.end_orphans, end(swept, dead))
    assert (ended.terminated, ended.left) == ((), (f"{dead}: it has the tag {PROTECT_TAG}",))
    assert swept.states()[dead] in ALIVE


async def test_a_workflow_ends_strays_of_any_launch_and_nothing_else(swept: World) -> None:
    await swept.launched(await swept.opened())
    await swept.opened(after=1)
    await swept.run(ports.fence_instances, swept.fence(2))
    box = await swept.launched(2)
    older, second, later = (
        await planted(swept),
        await replace(swept).stranger(owner=swept.config.owner, generation=2, attempt=1),
        await replace(swept).stranger(owner=swept.config.owner, generation=2, attempt=7),
    )
    ahead, kept = await planted(swept, generation=3), await planted(swept)
    await protect(swept, kept)
    foreign = await swept.stranger(owner="another-control-plane")
    asked = (box, older, second, later, ahead, kept, foreign)
    ended = await swept.run(sweep_ports.end_orphans, end(swept, *asked, generation=2))
    assert ended.instances == asked
    assert set(ended.terminated) == {older, second, later}
    assert {one for one, state in swept.states().items() if state in ALIVE} == {box, ahead, kept, foreign}


async def test_a_box_that_was_declared_dead_and_came_back_is_swept(swept: World) -> None:
    old = await swept.launched(await swept.opened())
    await swept.opened(after=1)
    await swept.run(ports.fence_instances, swept.fence(2, declared_dead=(old,)))
    box = await swept.launched(2)
    await look(swept)
    assert verdicts(await look(swept)) == {old: Verdict.STRAY}
    ended = await swept.run(sweep_ports.end_orphans, end(swept, old, generation=2))
    assert ended.terminated == (old,)
    assert swept.states()[box] in ALIVE


async def test_a_late_workflow_ends_nothing(swept: World) -> None:
    await swept.opened()
    old = await planted(swept, generation=0)
    await swept.opened(after=1)
    error = await swept.fails(sweep_ports.end_orphans, end(swept, old, generation=1))
    assert error.type == ports.SUPERSEDED
    assert swept.states()[old] in ALIVE


async def test_one_that_ec2_protects_does_not_keep_the_others(swept: World) -> None:
    await swept.opened()
    strays = [await planted(swept, generation=0) for _ in range(2)]
    swept.endpoint.inject(
        "TerminateInstances",
        "error",
        code="OperationNotPermitted",
        status=400,
        workspace=swept.workspace_id,
    )
    ended = await swept.run(sweep_ports.end_orphans, end(swept, *strays, generation=1))
    assert len(ended.terminated) == 1
    assert len(ended.left) == 1
    assert "protection" in ended.left[0]


async def test_an_empty_or_failed_list_leads_to_nothing(swept: World) -> None:
    await swept.opened()
    await deleted(swept)
    dead = await planted(swept)
    await look(swept)
    swept.endpoint.inject("DescribeInstances", "empty_list")
    empty = await look(swept)
    assert (empty.looked_at, empty.orphans) == (0, ())
    swept.endpoint.inject("DescribeInstances", "error", code="RequestLimitExceeded")
    failed = await swept.fails(
        sweep_ports.find_orphan_instances, sweep_ports.FindOrphans(pass_id=f"pass {next(_PASSES)}")
    )
    assert failed.type == "RequestLimitExceeded"
    swept.endpoint.inject("DescribeInstances", "empty_list")
    assert (await swept.run(sweep_ports.end_orphans, end(swept, dead))).terminated == ()
    assert swept.states()[dead] in ALIVE
    assert verdicts(await look(swept)) == {dead: Verdict.END}


async def test_lists_are_read_to_their_last_page(swept: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "PAGE", 5)
    await swept.opened()
    strays = {await planted(swept, generation=0) for _ in range(12)}
    found = await look(swept)
    assert (found.looked_at, set(verdicts(found))) == (12, strays)


async def test_a_pass_does_so_much_and_no_more_and_the_next_one_the_rest(swept: World) -> None:
    await swept.opened()
    strays = {await planted(swept, generation=0) for _ in range(7)}
    await look(swept)
    await look(swept, used=1)
    assert len(await facts(swept)) == 4
    await look(swept)
    assert {fact["detail"] for fact in await facts(swept)} == strays
    assert len(await facts(swept)) == 7


async def test_a_dry_run_only_says_what_would_be_done(swept: World) -> None:
    dry = with_policy(swept, dry_run=True)
    await dry.opened()
    old = await planted(dry, generation=0)
    await look(dry)
    for _ in range(2):
        found = await look(dry)
        assert (verdicts(found), found.dry_run) == ({old: Verdict.STRAY}, True)
    assert await facts(dry) == []


async def test_two_control_planes_in_one_account_do_not_touch_each_other(
    swept: World, planes: Iterator[str], database_url: str
) -> None:
    """Each has a database of its own; account, zone, and names of workspaces are the same."""
    name = "other_plane"
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("DROP DATABASE IF EXISTS other_plane")
        conn.execute("CREATE DATABASE other_plane")
    url = f"{database_url.rpartition('/')[0]}/{name}"
    await patiently_migrate(url)
    async with patient_pool(url, maximum=2) as pool:
        other = of_plane(replace(swept, pool=pool), next(planes))
        mine, theirs = await swept.launched(await swept.opened()), await other.launched(await other.opened())
        my_stray, their_stray = await planted(swept, generation=0), await planted(other, generation=0)
        only_theirs = await planted(other, f"{swept.workspace_id}-theirs")
        for world in (swept, other):
            await look(world)
        assert verdicts(await look(swept)) == {my_stray: Verdict.STRAY}
        assert verdicts(await look(other)) == {their_stray: Verdict.STRAY, only_theirs: Verdict.END}
        everything = (mine, theirs, my_stray, their_stray)
        assert (
            await swept.run(sweep_ports.end_orphans, end(swept, *everything, generation=1))
        ).terminated == (my_stray,)
        assert {one for one, state in swept.states().items() if state in ALIVE} == {
            mine,
            theirs,
            their_stray,
        }


async def change(
    world: World, action: Literal["CREATE", "DELETE"], name: str, kind: Literal["A", "TXT"], value: str
) -> None:
    await world.aws.call(
        world.aws.route53.change_resource_record_sets,
        HostedZoneId=world.config.zone.zone_id,
        ChangeBatch={
            "Changes": [
                {
                    "Action": action,
                    "ResourceRecordSet": {
                        "Name": name,
                        "Type": kind,
                        "TTL": 30,
                        "ResourceRecords": [{"Value": value}],
                    },
                }
            ]
        },
    )


async def named(world: World, workspace_id: str, *, owner: str | None = None, at: str = "") -> str:
    """A name with our claim, as an address would have written it."""
    host = at or world.config.zone.name_of(workspace_id)
    claim = Claim(owner=owner or world.config.owner, workspace_id=workspace_id, generation=1, attempt=1)
    await change(world, "CREATE", host, "A", "10.0.0.9")
    await change(world, "CREATE", companion(host), "TXT", claim.text)
    return host


async def names_in_zone(world: World) -> set[str]:
    pages = world.aws.route53.get_paginator("list_resource_record_sets")
    listed = await world.aws.call(
        lambda: list(pages.paginate(HostedZoneId=world.config.zone.zone_id)),
    )
    return {record["Name"].rstrip(".") for page in listed for record in page["ResourceRecordSets"]}


async def test_names_of_workspaces_that_are_gone_are_removed_and_others_are_not(swept: World) -> None:
    await swept.opened()
    ws = swept.workspace_id
    gone = replace(swept, workspace_id=f"{ws}-gone")
    await gone.opened()
    await deleted(gone)
    dead, nobody = await named(swept, f"{ws}-gone"), await named(swept, f"{ws}-nobody")
    mine = await named(swept, ws)
    foreign = await named(swept, f"{ws}-foreign", owner="another-control-plane")
    alias = await named(swept, f"{ws}-alias", at=f"www.{ws}.{swept.config.zone.name}")
    plain = f"{ws}-plain.{swept.config.zone.name}"
    await change(swept, "CREATE", plain, "A", "10.0.0.9")
    first = await look_at_names(swept)
    assert first.looked_at == 4, "another owner's is not even looked at"
    assert verdicts(first) == {
        dead: Verdict.SEEN_ONCE,
        nobody: Verdict.SEEN_ONCE,
        alias: Verdict.UNLABELLED,
    }
    second = verdicts(await look_at_names(swept))
    assert (second[dead], second[nobody]) == (Verdict.END, Verdict.END)
    for workspace_id in (f"{ws}-gone", f"{ws}-nobody"):
        await swept.run(ports.remove_address, ports.RemoveAddress(workspace_id=workspace_id))
    left = await names_in_zone(swept)
    assert not {dead, nobody, companion(dead), companion(nobody)} & left
    assert {mine, foreign, alias, plain} <= left
    assert verdicts(await look_at_names(swept)) == {alias: Verdict.UNLABELLED}


async def test_names_are_as_old_as_their_first_sighting(swept: World) -> None:
    patient = with_policy(swept, age=timedelta(minutes=5))
    await patient.opened()
    nobody = await named(patient, f"{patient.workspace_id}-nobody")
    await look_at_names(patient)
    assert verdicts(await look_at_names(patient)) == {nobody: Verdict.YOUNG}
    await patient.rows(
        "UPDATE orphans SET first_seen = first_seen - interval '5 min' WHERE name = %(name)s", name=nobody
    )
    assert verdicts(await look_at_names(patient)) == {nobody: Verdict.END}
