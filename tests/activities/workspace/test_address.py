"""The address of a box: waiting for it, the compare-and-swap of its name, and giving the name back."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import pytest

from activities.workspace import address
from activities.workspace.dns_records import ChangeSet, Claim, ownership_txt_name, plan_upsert
from tests.activities.workspace.zone import change
from tests.activities.world import OWNER, World
from workflows.workspace import contract
from workflows.workspace.enums import Intent

if TYPE_CHECKING:
    from mypy_boto3_route53 import Route53Client

pytestmark = pytest.mark.anyio


def name_of(world: World) -> str:
    return world.config.zone.name_of(world.workspace_id)


async def records(world: World) -> dict[str, str]:
    """The values at the workspace's name, by type."""
    name = name_of(world)
    page = await world.aws.call(
        world.aws.route53.list_resource_record_sets,
        HostedZoneId=world.config.zone.zone_id,
        StartRecordName=name,
    )
    return {
        record["Type"]: record["ResourceRecords"][0]["Value"]
        for record in page["ResourceRecordSets"]
        if record["Name"] in (f"{name}.", f"{ownership_txt_name(name)}.")
    }


async def write(world: World, action: Literal["CREATE", "DELETE", "UPSERT"], value: str) -> None:
    """A change by another writer."""
    await change(world, action, name_of(world), "A", value)


def changes(world: World) -> int:
    return world.endpoint.counts(world.workspace_id).dns_changes


async def at_home(world: World, *, after: int = 0) -> str:
    """A generation with its box at its address; returns the address."""
    generation = await world.opened(after=after)
    if after:
        await world.run(contract.fence_instances, world.fence(generation))
    instance_id = await world.launched(generation)
    result = await world.run(contract.address, world.address(generation, instance_id))
    assert not result.gone
    return result.private_ip


async def test_a_box_that_runs_gets_its_name_once(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    before = changes(world)
    first = await world.run(contract.address, world.address(generation, instance_id))
    assert (first.gone, first.dns_name) == (False, name_of(world))
    assert world.states()[instance_id] == "running"
    after = changes(world)
    assert await world.run(contract.address, world.address(generation, instance_id)) == first
    assert changes(world) == after > before
    assert (await records(world))["A"] == first.private_ip
    assert (await world.workspace_row())["dns_name"] == first.dns_name
    (row,) = await world.rows(
        "SELECT host(private_ip) AS ip FROM generations WHERE workspace_id = %(workspace_id)s"
    )
    assert row["ip"] == first.private_ip


async def test_what_the_launch_recorded_of_its_box_is_not_written_again(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    versions = """
        SELECT g.xmin AS generation, l.xmin AS launch FROM generations g JOIN launches l USING (workspace_id)
        WHERE workspace_id = %(workspace_id)s
    """
    before = await world.rows(versions)
    assert not (await world.run(contract.address, world.address(generation, instance_id))).gone
    assert await world.rows(versions) == before


async def test_an_attempt_that_was_overtaken_gets_no_name_though_its_box_is_on_record(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    assert (await world.run(contract.launch, world.launch(generation, attempt=2))).orphan_instances == (
        instance_id,
    )
    error = await world.fails(contract.address, world.address(generation, instance_id))
    assert error.type == contract.SUPERSEDED
    assert await records(world) == {}


async def test_the_name_moves_to_the_next_generation(world: World) -> None:
    old = await at_home(world)
    new = await at_home(world, after=1)
    assert new != old
    found = await records(world)
    assert found["A"] == new
    claim = Claim.parse(found["TXT"])
    assert claim == Claim(owner=OWNER, workspace_id=world.workspace_id, generation=2, attempt=1)


async def test_a_box_that_ended_is_gone_and_its_name_is_not_changed(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    await asyncio.to_thread(world.endpoint.shutdown, instance_id)
    result = await world.run(contract.address, world.address(generation, instance_id))
    assert result.gone
    assert result.detail
    assert changes(world) == 0


async def test_a_box_that_is_not_listed_yet_is_waited_for(world: World) -> None:
    impatient = short(world)
    generation = await world.opened()
    instance_id = await world.launched(generation)
    world.endpoint.inject("DescribeInstances", "empty_list", times=None)
    error = await impatient.fails(contract.address, world.address(generation, instance_id))
    assert (error.type, error.non_retryable) == ("instance_pending", False)


async def test_an_old_box_that_is_no_longer_listed_is_gone(world: World) -> None:
    impatient = short(world)
    generation = await world.opened()
    instance_id = await world.launched(generation)
    await world.rows(
        "UPDATE launches SET requested_at = now() - interval '6 min' WHERE workspace_id = %(workspace_id)s"
    )
    world.endpoint.inject("DescribeInstances", "empty_list", times=None)
    assert (await impatient.run(contract.address, world.address(generation, instance_id))).gone


async def test_a_superseded_generation_changes_no_name(world: World) -> None:
    await at_home(world)
    before = await records(world)
    await world.opened(after=1)
    (instance_id,) = world.states()
    error = await world.fails(contract.address, world.address(1, instance_id))
    assert error.type == contract.SUPERSEDED
    assert await records(world) == before


async def test_a_superseded_generation_does_not_mistake_its_fenced_box_for_a_lost_one(world: World) -> None:
    instance_id = await world.launched(await world.opened())
    await world.opened(after=1)
    await world.run(contract.fence_instances, world.fence(2))
    assert (await world.fails(contract.address, world.address(1, instance_id))).type == contract.SUPERSEDED


async def test_a_name_of_another_owner_is_not_changed(world: World) -> None:
    generation = await world.opened()
    await write(world, "CREATE", "192.0.2.1")
    instance_id = await world.launched(generation)
    error = await world.fails(contract.address, world.address(generation, instance_id))
    assert (error.type, error.details[1]) == ("dns_name_taken", contract.REFUSED)
    assert await records(world) == {"A": "192.0.2.1"}
    await write(world, "DELETE", "192.0.2.1")
    assert not (await world.run(contract.address, world.address(generation, instance_id))).gone


async def without_claim(world: World) -> str:
    """A box at its address, whose TXT record somebody deleted; returns the address."""
    address = await at_home(world)
    claim = (await records(world))["TXT"]
    await change(world, "DELETE", ownership_txt_name(name_of(world)), "TXT", claim)
    assert await records(world) == {"A": address}
    return address


async def test_a_deleted_claim_is_written_again_with_the_next_box(world: World) -> None:
    await without_claim(world)
    new = await at_home(world, after=1)
    found = await records(world)
    assert found["A"] == new
    assert Claim.parse(found["TXT"]) == claim_of(world, 2)


async def test_a_name_with_a_deleted_claim_is_removed_with_its_workspace(world: World) -> None:
    await without_claim(world)
    await world.closed(1, intent=Intent.DELETE)
    await world.run(contract.remove_address, contract.RemoveAddress(workspace_id=world.workspace_id))
    assert await records(world) == {}


async def test_a_change_with_a_lost_response_is_in_sync_at_the_retry(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    world.endpoint.inject("ChangeResourceRecordSets", "lost_answer", workspace=world.workspace_id)
    assert (
        await world.fails(contract.address, world.address(generation, instance_id))
    ).type == "aws_unreachable"
    once = changes(world)
    await world.run(contract.address, world.address(generation, instance_id))
    assert changes(world) == once


async def test_a_missing_zone_is_refused_with_a_hint(world: World) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    error = await without_zone(world).fails(contract.address, world.address(generation, instance_id))
    assert (error.type, error.details[1]) == ("NoSuchHostedZone", contract.REFUSED)
    assert "DNS_ZONE_ID" in str(error.details[0])


@contextmanager
def overtaken(monkeypatch: pytest.MonkeyPatch, *writes: ChangeSet) -> Iterator[list[ChangeSet]]:
    """Other writers change the records before each of our first changes."""
    waiting = list(writes)
    change = address._change

    def late(route53: "Route53Client", zone_id: str, swap: ChangeSet) -> None:
        if waiting:
            change(route53, zone_id, waiting.pop(0))
        change(route53, zone_id, swap)

    with monkeypatch.context() as patch:
        patch.setattr(address, "_change", late)
        yield waiting


def held_by(world: World, claim: Claim, ip: str, *, old: tuple[Claim, str] | None) -> ChangeSet:
    """The swap that another worker makes."""
    found = []
    if old is not None:
        created = plan_upsert(name_of(world), old[0], ip=old[1], ttl=30, found=[])
        assert isinstance(created, ChangeSet)
        found = [change["ResourceRecordSet"] for change in created.changes]
    swap = plan_upsert(name_of(world), claim, ip=ip, ttl=30, found=found)
    assert isinstance(swap, ChangeSet)
    return swap


def claim_of(world: World, generation: int) -> Claim:
    return Claim(owner=OWNER, workspace_id=world.workspace_id, generation=generation, attempt=1)


async def test_a_race_lost_against_an_older_box_is_retried_and_won(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.opened()
    await world.opened(after=1)
    instance_id = await world.launched(2)
    late_one = held_by(world, claim_of(world, 1), "192.0.2.7", old=None)
    with overtaken(monkeypatch, late_one) as waiting:
        result = await world.run(contract.address, world.address(2, instance_id))
    assert not waiting
    found = await records(world)
    assert found["A"] == result.private_ip
    assert Claim.parse(found["TXT"]) == claim_of(world, 2)


async def test_a_race_lost_against_a_newer_box_is_final(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = await world.opened()
    instance_id = await world.launched(generation)
    newer = held_by(world, claim_of(world, 2), "192.0.2.8", old=None)
    with overtaken(monkeypatch, newer):
        error = await world.fails(contract.address, world.address(generation, instance_id))
    assert error.type == "dns_ahead_of_record"  # the newer one is not in the database here
    assert (await records(world))["A"] == "192.0.2.8"


async def test_a_reused_address_does_not_hide_a_newer_box(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ABA: after our read, generation 2 came and went, and generation 3 got the address of generation 1.
    await world.opened()
    instance_id = await world.launched(1)
    first = (await world.run(contract.address, world.address(1, instance_id))).private_ip
    await world.rows("UPDATE generations SET instance_id = NULL WHERE workspace_id = %(workspace_id)s")
    moved = world.address(1, instance_id, attempt=2)  # a launch that wants to change the name
    third = held_by(world, claim_of(world, 3), first, old=(claim_of(world, 1), first))
    await world.rows("UPDATE launches SET attempt = 2 WHERE workspace_id = %(workspace_id)s")
    with overtaken(monkeypatch, third) as waiting:
        error = await world.fails(contract.address, moved)
    assert not waiting
    assert error.type == "dns_ahead_of_record"  # the newer one is not in the database here
    found = await records(world)
    assert found["A"] == first
    assert Claim.parse(found["TXT"]) == claim_of(world, 3)


async def test_losing_every_race_is_a_retryable_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.opened()
    for after in range(1, 8):
        await world.opened(after=after)
    instance_id = await world.launched(8)
    claims = [claim_of(world, generation) for generation in range(1, 6)]
    writes = [held_by(world, claims[0], "192.0.2.1", old=None)]
    writes += [
        held_by(world, new, f"192.0.2.{number}", old=(old, f"192.0.2.{number - 1}"))
        for number, (old, new) in enumerate(itertools.pairwise(claims), start=2)
    ]
    with overtaken(monkeypatch, *writes):
        error = await world.fails(contract.address, world.address(8, instance_id))
    assert (error.type, error.non_retryable) == ("dns_conflict", False)
    assert "it was not found" in error.message or "do not match" in error.message, error.message
    await world.run(contract.address, world.address(8, instance_id))


@pytest.mark.parametrize("step", ["address", "remove_address"])
async def test_a_change_that_route_53_does_not_allow_is_reported_in_its_words(
    world: World, step: str
) -> None:
    words = "[RRSet with DNS name is not permitted in zone boxes.internal.]"
    generation = await world.opened()
    instance_id = await world.launched(generation)
    if step == "remove_address":
        await world.run(contract.address, world.address(generation, instance_id))
        await world.closed(generation, intent=Intent.DELETE)
    world.endpoint.inject(
        "ChangeResourceRecordSets",
        "error",
        code="InvalidChangeBatch",
        status=400,
        message=words,
        times=None,
        workspace=world.workspace_id,
    )
    if step == "address":
        error = await world.fails(contract.address, world.address(generation, instance_id))
    else:
        error = await world.fails(
            contract.remove_address, contract.RemoveAddress(workspace_id=world.workspace_id)
        )
    assert (error.type, error.non_retryable) == ("dns_conflict", False)
    assert words in error.message


async def test_the_name_of_a_deleted_workspace_is_removed_once_and_twice(world: World) -> None:
    await at_home(world)
    await world.closed(1, intent=Intent.DELETE)
    for _ in range(2):
        await world.run(contract.remove_address, contract.RemoveAddress(workspace_id=world.workspace_id))
    assert await records(world) == {}
    assert (await world.workspace_row())["dns_name"] is None


async def test_a_name_whose_zone_is_gone_is_removed(world: World) -> None:
    await at_home(world)
    await world.closed(1, intent=Intent.DELETE)
    lost = without_zone(world)
    await lost.run(contract.remove_address, contract.RemoveAddress(workspace_id=world.workspace_id))
    assert (await world.workspace_row())["dns_name"] is None


async def test_the_name_of_an_open_generation_is_not_removed(world: World) -> None:
    await at_home(world)
    request = contract.RemoveAddress(workspace_id=world.workspace_id)
    assert (await world.fails(contract.remove_address, request)).type == contract.SUPERSEDED
    assert "A" in await records(world)


async def test_removing_leaves_the_records_of_others_alone(world: World) -> None:
    await world.opened()
    await write(world, "CREATE", "192.0.2.1")
    await world.closed(1, intent=Intent.DELETE)
    await world.run(contract.remove_address, contract.RemoveAddress(workspace_id=world.workspace_id))
    assert await records(world) == {"A": "192.0.2.1"}


def without_zone(world: World) -> World:
    """The same world with a hosted zone that does not exist."""
    zone = replace(world.config.zone, zone_id="Z000000000000000")
    return world.with_config(replace(world.config, zone=zone))


def short(world: World) -> World:
    """The same world with a short timeout for running instances."""
    poll_policy = replace(world.config.poll_policy, running=timedelta(milliseconds=60))
    return world.with_config(replace(world.config, poll_policy=poll_policy))
