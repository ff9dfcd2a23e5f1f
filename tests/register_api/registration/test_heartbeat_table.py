"""The heartbeat rules of the protocol over HTTP, as rows: a test for each, in the order they are told in.

What comes with a beat, the answer, and the effect. None of the refused ones promotes a box.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import LiteralString

import pytest

from devstack.postgres import Postgres
from tests.register_api import rows
from tests.register_api.platform import HURRY, Box, Platform, platform_on
from tests.register_api.rows import (
    FULL,
    LATER,
    UNKNOWN_TOKEN,
    boxes_by_what_is_live,
    decided,
    locate,
    refusal,
    revoke,
    send_beat,
    strikes,
)

pytestmark = pytest.mark.anyio

PARTIAL: Mapping[str, object] = {"active_tasks": 1, "current_task": "a helper's"}
BEATS: LiteralString = "SELECT * FROM heartbeats WHERE workspace_id = %s"
TOKENS: LiteralString = "SELECT * FROM tokens WHERE workspace_id = %s ORDER BY created_at"


async def assert_counts(platform: Platform, box: Box, members: Mapping[str, object] = PARTIAL) -> None:
    """The beat is answered with its generation, and is the box's last sign of life."""
    [before] = await platform.rows(BEATS, box)
    answer = await send_beat(box, members)
    assert (answer.status_code, answer.json()) == (
        200, {"status": "ok", "lifecycle_generation": box.generation},
    )  # fmt: skip
    [after] = await platform.rows(BEATS, box)
    assert after["generation"] == box.generation
    assert before["last_heartbeat_at"] is None or after["last_heartbeat_at"] > before["last_heartbeat_at"]
    assert after["last_heartbeat_at"] is not None


async def test_row_live_pending_token_200_confirmed_predecessor_revoked_and_counts_as_life(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.age(old, LATER)
    new = await replace(old, token=None).enter()
    assert await platform.tokens(old) == ["retiring", "pending"]
    await assert_counts(platform, new)
    assert await platform.tokens(old) == ["revoked", "active"]
    assert (await platform.rows(TOKENS, old))[1]["nonce"] is None


async def test_row_live_active_token_200_counts_as_life(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    [before], facts = await platform.rows(TOKENS, box), await platform.facts(box)
    await assert_counts(platform, box, FULL)
    await assert_counts(platform, box)  # the partial beat of a helper that has the token
    [after] = await platform.rows(TOKENS, box)
    assert after == before | {"last_used_at": after["last_used_at"]}
    assert after["last_used_at"] > before["last_used_at"]
    assert await platform.facts(box) == facts == [(1, "registered"), (1, "alive")]


async def test_row_live_retiring_token_200_counts_as_life_and_its_successor_stays_pending(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.age(old, LATER)
    await replace(old, token=None).enter()
    await assert_counts(platform, old)
    assert await platform.tokens(old) == ["retiring", "pending"]


async def test_row_bootstrap_secret_without_a_token_401_reregister_required_promotes_nothing(
    platform: Platform,
) -> None:
    for box in (await boxes_by_what_is_live(platform)).values():
        before = await platform.everything(box)
        for answer in (
            await box.beat(secret=True),
            await box.beat(bearer=box.secret),
            await box.beat(bearer=UNKNOWN_TOKEN, secret=True),
        ):
            assert refusal(answer) == (401, "reregister_required", "reregister")
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert await platform.everything(box) == before
        assert await decided(platform, box) == ("not_valid", "current", "reregister_required", False)


async def test_row_three_full_ones_in_a_row_put_credential_lost_on_the_record_once(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    bare, tokens = replace(box, token=None), await platform.tokens(box)
    [alive] = await platform.rows(BEATS, box)
    since = set()
    for number in (1, 2, 3, 4, 5):
        assert refusal(await send_beat(bare, FULL, secret=True)) == (401, "reregister_required", "reregister")
        assert await strikes(platform, box) == (number, number >= 3)
        assert (await platform.facts(box)).count((1, "credential_lost")) == (number >= 3)
        [row] = await platform.rows(BEATS, box)
        since.add(row["credential_lost_at"])
        assert row == alive | {
            "unauthenticated_count": number,
            "credential_lost_at": row["credential_lost_at"],
        }
    assert len(since) == 2  # none, and the time of the third
    assert await platform.tokens(box) == tokens
    alerts = [hit for hit in await rows.trail(platform, box) if hit[3]]
    assert alerts == [("not_valid", "current", "reregister_required", True)]


@pytest.mark.parametrize("left_out", sorted(FULL))
async def test_row_partial_ones_are_no_strike_and_begin_nothing_anew(
    platform: Platform, left_out: str
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await locate(platform, box, rows.PEER)
    bare = replace(box, token=None)
    for _ in range(2):
        await send_beat(bare, FULL)
    before = await platform.everything(box)
    partial = {name: value for name, value in FULL.items() if name != left_out}
    for _ in range(2):
        for secret in (True, False):
            assert (await send_beat(bare, partial, secret=secret)).status_code == 401
    assert await platform.everything(box) == before
    assert await strikes(platform, box) == (2, False)


async def test_row_a_counted_beat_in_between_begins_the_three_anew(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    bare = replace(box, token=None)
    for _ in range(2):
        for number in (1, 2):
            await send_beat(bare, FULL, secret=True)
            assert await strikes(platform, box) == (number, False)
        await assert_counts(platform, box)
        assert await strikes(platform, box) == (0, False)
    assert (1, "credential_lost") not in await platform.facts(box)


async def test_row_a_counted_beat_takes_credential_lost_off_the_record_and_is_a_fact(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(3):
        await send_beat(replace(box, token=None), FULL, secret=True)
    await assert_counts(platform, box)
    assert await strikes(platform, box) == (0, False)
    assert (await platform.facts(box))[-2:] == [(1, "credential_lost"), (1, "alive")]


async def test_row_older_generation_410_superseded_shutdown_terminate_that_instance_and_no_strike(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = await (await platform.replaced(old)).enter()
    await locate(platform, new, rows.ELSEWHERE)
    # Revoked with its generation, as a rule; that it is not must not matter.
    await platform.database.execute(
        "UPDATE tokens SET state = 'active' WHERE workspace_id = %s AND generation = 1", [old.workspace_id]
    )
    calls = (
        old,
        replace(old, token=old.secret),
        replace(old, token=new.token),  # the file of the new box, on a volume that both can write to
    )
    before = await platform.everything(new)
    for caller in calls:
        answer = await send_beat(caller, FULL, secret=caller.token == new.token)
        assert refusal(answer) == (410, "superseded", "shutdown")
    assert await platform.everything(new) == before  # its termination is on its way

    await rows.age_end(platform, old)
    before = await platform.everything(new)
    for _ in range(2):
        for caller in calls:
            answer = await send_beat(caller, FULL, secret=caller.token == new.token)
            assert refusal(answer) == (410, "superseded", "shutdown")
    *unchanged, fact = await platform.everything(new)
    assert unchanged == before
    assert (fact["generation"], fact["kind"]) == (1, "superseded_call")
    assert await platform.tokens(new) == ["active", "pending"]


async def test_row_unauthenticated_401_promotes_nothing(platform: Platform) -> None:
    other = await (await platform.workspace()).enter_and_use()
    boxes = await boxes_by_what_is_live(platform)
    revoked = await (await platform.workspace()).enter_and_use()
    await revoke(platform, revoked)
    for box in (*boxes.values(), revoked):
        bare, before = replace(box, token=None), await platform.everything(box)
        missing = await send_beat(bare, FULL)
        assert refusal(missing) == (401, "token_missing", "reregister")
        assert missing.headers["www-authenticate"] == "Bearer"
        assert await decided(platform, box) == ("absent", "unproven", "token_missing", False)
        for bearer in (box.token or "x", UNKNOWN_TOKEN, "two words", other.token, other.secret):
            assert refusal(await send_beat(bare, FULL, bearer=bearer)) == (401, "token_invalid", "reregister")
        assert await decided(platform, box) == ("not_valid", "unproven", "token_invalid", False)
        assert await platform.everything(box) == before


async def test_row_undetermined_503_instance_not_ready_none(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    before = await platform.everything(box)
    answer = await send_beat(replace(box, generation=2, token=None), FULL, secret=True)
    assert refusal(answer) == (503, "instance_not_ready", "retry")
    # A token says who was given it; the secret says which box this is, and its generation is not there yet.
    assert refusal(await replace(box, generation=2).beat(secret=True)) == (503, "instance_not_ready", "retry")
    assert await platform.everything(box) == before


async def test_row_workspace_unknown_404_no_row_appears(platform: Platform) -> None:
    box = Box(platform.client, "ws-unknown", 1)
    for answer in (await send_beat(box, FULL), await send_beat(box, FULL, secret=True)):
        assert refusal(answer) == (404, "workspace_unknown", "contact_operator")
    assert await platform.everything(box) == []
    assert await rows.trail(platform, box) == []


@pytest.mark.parametrize(("intent", "code"), [("stop", "workspace_stopped"), ("delete", "workspace_removed")])
async def test_row_workspace_deleted_or_stopped_410_and_401_if_unproven_none(
    platform: Platform, intent: str, code: str
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.intend(box, intent)
    await rows.age_end(platform, box)
    before = await platform.everything(box)
    for _ in range(3):
        for answer in (
            await send_beat(box, FULL),
            await send_beat(replace(box, token=None), FULL, secret=True),
        ):
            assert refusal(answer) == (410, code, "shutdown")
        stranger = await send_beat(replace(box, token=None), FULL)
        assert refusal(stranger) == (401, "token_missing", "reregister")
    assert await platform.everything(box) == before


async def test_row_a_live_token_of_a_workspace_that_is_being_stopped_410_is_no_life(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute(
        "UPDATE workspaces SET intent = 'stop' WHERE workspace_id = %s", [box.workspace_id]
    )
    before = await platform.everything(box)
    assert refusal(await send_beat(box, FULL)) == (410, "workspace_stopped", "shutdown")
    assert await platform.everything(box) == before


async def test_row_database_not_available_503_platform_unavailable_none(
    postgres: Postgres, database: str
) -> None:
    async with platform_on(database) as platform:
        box = await (await platform.workspace()).enter()
        before = await platform.everything(box)
        platform.hurry()
        async with rows.unavailable(postgres, database):
            for caller in (box, replace(box, token=None)):
                assert refusal(await send_beat(caller, FULL)) == (503, "platform_unavailable", "retry")
    async with platform_on(database) as platform:
        assert await platform.everything(box) == before


async def test_row_lock_not_available_503_platform_unavailable_none(database: str) -> None:
    async with platform_on(database, lock_timeout=HURRY) as platform:
        box = await (await platform.workspace()).enter()
        before, trail = await platform.everything(box), await rows.trail(platform, box)
        async with platform.database.transaction():
            await platform.database.execute(
                "SELECT FROM tokens WHERE workspace_id = %s FOR UPDATE", [box.workspace_id]
            )
            assert refusal(await send_beat(box, FULL)) == (503, "platform_unavailable", "retry")
        assert await platform.everything(box) == before
        assert await rows.trail(platform, box) == trail
        await assert_counts(platform, box)


async def test_row_body_unreadable_or_out_of_bounds_400_413_415_none(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    before, trail = await platform.everything(box), await rows.trail(platform, box)
    answers = await rows.unfitting(platform, box, "/registry/heartbeat")
    assert answers == [answer for _, _, answer in rows.BODIES]
    assert await platform.everything(box) == before
    assert await rows.trail(platform, box) == trail
