"""What tests of the orphan sweep do and see."""

import itertools
from dataclasses import replace
from datetime import timedelta

from activities.aws.instances import PROTECT_TAG
from activities.workspace.dns_records import Claim, ownership_txt_name
from tests.activities.workspace.zone import change
from tests.activities.world import World
from workflows.orphans import contract
from workflows.orphans.rules import OrphanAction, OrphanPolicy
from workflows.workspace.contract import TerminateOrphans
from workflows.workspace.enums import Intent

ALIVE = ("pending", "running")


PASSES = itertools.count(1)


def of_plane(world: World, owner: str, **policy: object) -> World:
    policy_without_age = OrphanPolicy(min_age=timedelta(), retry_after=timedelta(minutes=5))
    return world.with_config(
        replace(world.config, owner=owner, orphans=replace(policy_without_age, **policy))  # type: ignore[arg-type]
    )


def with_policy(world: World, **policy: object) -> World:
    return of_plane(world, world.config.owner, **policy)


async def run_pass(world: World, *, pass_id: str | None = None, used: int = 0) -> contract.OrphansFound:
    request = contract.FindOrphans(pass_id=pass_id or f"pass {next(PASSES)}", used=used)
    return await world.run(contract.find_orphan_instances, request)


async def look_at_names(world: World) -> contract.OrphansFound:
    return await world.run(contract.find_orphan_names, contract.FindOrphans(pass_id=f"pass {next(PASSES)}"))


def verdicts(found: contract.OrphansFound) -> dict[str, OrphanAction]:
    return {one.name: one.action for one in found.orphans}


async def planted(world: World, workspace_id: str | None = None, *, generation: int = 1) -> str:
    other = replace(world, workspace_id=workspace_id or world.workspace_id)
    return await other.unrecorded_instance(owner=world.config.owner, generation=generation)


async def protect(world: World, instance_id: str) -> None:
    await world.aws.call(
        world.aws.ec2.create_tags, Resources=[instance_id], Tags=[{"Key": PROTECT_TAG, "Value": ""}]
    )


async def deleted(world: World) -> None:
    await world.closed(1, intent=Intent.DELETE)
    await world.rows("UPDATE workspaces SET deleted_at = now() WHERE workspace_id = %(workspace_id)s")


async def events(world: World) -> list[dict[str, object]]:
    return await world.rows(
        "SELECT kind, generation, detail FROM workspace_outbox WHERE workspace_id = %(workspace_id)s"
        " ORDER BY event_id"
    )


def end(world: World, *instances: str, generation: int | None = None) -> TerminateOrphans:
    return TerminateOrphans(workspace_id=world.workspace_id, instances=instances, generation=generation)


async def named(world: World, workspace_id: str, *, owner: str | None = None, at: str = "") -> str:
    """Create a name with a claim, as `address` would."""
    host = at or world.config.zone.name_of(workspace_id)
    claim = Claim(owner=owner or world.config.owner, workspace_id=workspace_id, generation=1, attempt=1)
    await change(world, "CREATE", host, "A", "10.0.0.9")
    await change(world, "CREATE", ownership_txt_name(host), "TXT", claim.text)
    return host
