"""The orphan sweep and DNS names: which are removed, and as how old they count."""

from dataclasses import replace
from datetime import timedelta

import pytest

from activities.workspace.dns_records import ownership_txt_name
from tests.activities.orphans.sweeping import deleted, look_at_names, named, verdicts, with_policy
from tests.activities.workspace.zone import change, names_in_zone
from tests.activities.world import World
from workflows.orphans.rules import OrphanAction
from workflows.workspace import contract

pytestmark = pytest.mark.anyio


async def test_names_of_deleted_workspaces_are_removed_and_others_are_not(swept: World) -> None:
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
        dead: OrphanAction.SEEN_ONCE,
        nobody: OrphanAction.SEEN_ONCE,
        alias: OrphanAction.UNLABELLED,
    }
    second = verdicts(await look_at_names(swept))
    assert (second[dead], second[nobody]) == (OrphanAction.END, OrphanAction.END)
    for workspace_id in (f"{ws}-gone", f"{ws}-nobody"):
        await swept.run(contract.remove_address, contract.RemoveAddress(workspace_id=workspace_id))
    left = await names_in_zone(swept)
    assert not {dead, nobody, ownership_txt_name(dead), ownership_txt_name(nobody)} & left
    assert {mine, foreign, alias, plain} <= left
    assert verdicts(await look_at_names(swept)) == {alias: OrphanAction.UNLABELLED}


async def test_names_are_as_old_as_their_first_sighting(swept: World) -> None:
    waiting = with_policy(swept, min_age=timedelta(minutes=5))
    await waiting.opened()
    nobody = await named(waiting, f"{waiting.workspace_id}-nobody")
    await look_at_names(waiting)
    assert verdicts(await look_at_names(waiting)) == {nobody: OrphanAction.YOUNG}
    await waiting.rows(
        "UPDATE orphans SET first_seen = first_seen - interval '5 min' WHERE name = %(name)s", name=nobody
    )
    assert verdicts(await look_at_names(waiting)) == {nobody: OrphanAction.END}
