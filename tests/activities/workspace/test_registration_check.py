"""What the record knows of a box, for a deadline that has passed."""

from datetime import timedelta

import pytest

from store.registration import audit
from store.registration.audit import AuditEntry
from tests.activities.world import World
from workflows.workspace import contract, diagnosis

pytestmark = pytest.mark.anyio


async def registration_checked(world: World, generation: int = 1) -> diagnosis.RegistrationStatus:
    return await world.run(
        contract.check_registration,
        contract.CheckRegistration(workspace_id=world.workspace_id, generation=generation),
    )


async def called(world: World, code: str, *, generation: int = 1, repeats: int = 0) -> None:
    entry = AuditEntry(
        workspace_id=world.workspace_id,
        generation=generation,
        operation="register",
        identity="unproven",
        credential_kind="absent",
        code=code,
        token_prefix=None,
        source=None,
        from_box=False,
        needs_attention=False,
        request_id="r",
        repeats=repeats,
    )
    async with world.pool.connection() as conn:
        await audit.append(conn, entry)


async def beaten(world: World, ago: timedelta) -> None:
    await world.rows(
        "UPDATE heartbeats SET last_heartbeat_at = now() - %(ago)s WHERE workspace_id = %(workspace_id)s",
        ago=ago,
    )


async def inquired_beating(
    world: World, *, since: timedelta, stale: timedelta
) -> diagnosis.RegistrationStatus:
    """The status of a box whose last heartbeat is this old, and not marked as stale yet."""
    while True:
        await beaten(world, since)
        seen = await registration_checked(world)
        [row] = await world.rows(
            "SELECT now() - last_heartbeat_at < %(stale)s AS fresh FROM heartbeats"
            " WHERE workspace_id = %(workspace_id)s",
            stale=stale,
        )
        if row["fresh"]:
            return seen


async def test_a_box_without_calls_has_an_empty_status(world: World) -> None:
    await world.opened()
    assert await registration_checked(world) == diagnosis.RegistrationStatus()
    assert await registration_checked(world, generation=7) == diagnosis.RegistrationStatus()


async def test_refusals_are_counted_with_those_that_got_no_row(world: World) -> None:
    await world.opened()
    await called(world, "token_missing")
    await called(world, "token_missing", repeats=4)
    await called(world, "token_invalid", generation=0)
    [calls] = (await registration_checked(world)).calls
    assert (calls.code, calls.count, calls.from_box, calls.source) == ("token_missing", 6, False, None)


async def test_a_fresh_heartbeat_counts_and_an_old_one_does_not(world: World) -> None:
    await world.opened()
    await world.rows("UPDATE generations SET registered_at = now() WHERE workspace_id = %(workspace_id)s")
    seen = await inquired_beating(world, since=timedelta(seconds=89), stale=timedelta(seconds=90))
    assert seen.registered_at is not None
    assert seen.heartbeat_at is not None
    await beaten(world, timedelta(seconds=91))
    assert (await registration_checked(world)).heartbeat_at is None


@pytest.mark.parametrize(("used", "unused"), [(None, True), ("now()", False)])
async def test_an_unused_token_is_reported(world: World, used: str | None, unused: bool) -> None:
    await world.opened()
    state, nonce = ("pending", "'x'") if used is None else ("active", "NULL")
    await world.rows(
        "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, nonce, last_used_at)"
        f" VALUES (%(workspace_id)s, 1, '{state}', sha256(gen_random_uuid()::text::bytea), 'prefix12', 'k1',"
        f" {nonce}, {used or 'NULL'})"
    )
    assert (await registration_checked(world)).token_unused is unused
