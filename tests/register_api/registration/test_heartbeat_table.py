"""The heartbeat rules of the protocol over HTTP, one test for each row.

A row has the evidence, the response and the effect. No refused heartbeat promotes a box.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import LiteralString

import pytest

from tests.register_api import rows
from tests.register_api.platform import SHORT_TIMEOUT, Box, Platform, platform_on
from tests.register_api.rows import (
    FULL,
    LATER,
    UNKNOWN_TOKEN,
    boxes_by_what_is_live,
    decided,
    locate,
    refusal,
    revoke,
    send_heartbeat,
    unauthenticated,
)

pytestmark = pytest.mark.anyio

PARTIAL: Mapping[str, object] = {"active_tasks": 1, "current_task": "a helper's"}
HEARTBEATS: LiteralString = "SELECT * FROM heartbeats WHERE workspace_id = %s"
TOKENS: LiteralString = "SELECT * FROM tokens WHERE workspace_id = %s ORDER BY created_at"


async def assert_counts(platform: Platform, box: Box, members: Mapping[str, object] = PARTIAL) -> None:
    """The heartbeat is answered with its generation and updates the last heartbeat."""
    [before] = await platform.rows(HEARTBEATS, box)
    answer = await send_heartbeat(box, members)
    assert (answer.status_code, answer.json()) == (
        200, {"status": "ok", "lifecycle_generation": box.generation},
    )  # fmt: skip
    [after] = await platform.rows(HEARTBEATS, box)
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
    [before], events = await platform.rows(TOKENS, box), await platform.events(box)
    await assert_counts(platform, box, FULL)
    await assert_counts(platform, box)  # a partial heartbeat of a tool that has the token
    [after] = await platform.rows(TOKENS, box)
    assert after == before | {"last_used_at": after["last_used_at"]}
    assert after["last_used_at"] > before["last_used_at"]
    assert await platform.events(box) == events == [(1, "registered"), (1, "alive")]


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
            await box.heartbeat(secret=True),
            await box.heartbeat(bearer=box.secret),
            await box.heartbeat(bearer=UNKNOWN_TOKEN, secret=True),
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
    [alive] = await platform.rows(HEARTBEATS, box)
    since = set()
    for number in (1, 2, 3, 4, 5):
        assert refusal(await send_heartbeat(bare, FULL, secret=True)) == (
            401,
            "reregister_required",
            "reregister",
        )
        assert await unauthenticated(platform, box) == (number, number >= 3)
        assert (await platform.events(box)).count((1, "credential_lost")) == (number >= 3)
        [row] = await platform.rows(HEARTBEATS, box)
        since.add(row["credential_lost_at"])
        assert row == alive | {
            "unauthenticated_count": number,
            "credential_lost_at": row["credential_lost_at"],
        }
    assert len(since) == 2  # none, and the time of the third
    assert await platform.tokens(box) == tokens
    alerts = [hit for hit in await rows.audit_entries(platform, box) if hit[3]]
    assert alerts == [("not_valid", "current", "reregister_required", True)]


@pytest.mark.parametrize("left_out", sorted(FULL))
async def test_row_partial_ones_are_no_count_and_begin_nothing_anew(
    platform: Platform, left_out: str
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await locate(platform, box, rows.PEER)
    bare = replace(box, token=None)
    for _ in range(2):
        await send_heartbeat(bare, FULL)
    before = await platform.everything(box)
    partial = {name: value for name, value in FULL.items() if name != left_out}
    for _ in range(2):
        for secret in (True, False):
            assert (await send_heartbeat(bare, partial, secret=secret)).status_code == 401
    assert await platform.everything(box) == before
    assert await unauthenticated(platform, box) == (2, False)


async def test_row_a_counted_heartbeat_in_between_begins_the_three_anew(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    bare = replace(box, token=None)
    for _ in range(2):
        for number in (1, 2):
            await send_heartbeat(bare, FULL, secret=True)
            assert await unauthenticated(platform, box) == (number, False)
        await assert_counts(platform, box)
        assert await unauthenticated(platform, box) == (0, False)
    assert (1, "credential_lost") not in await platform.events(box)


async def test_row_a_counted_heartbeat_takes_credential_lost_off_the_record_and_is_an_event(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(3):
        await send_heartbeat(replace(box, token=None), FULL, secret=True)
    await assert_counts(platform, box)
    assert await unauthenticated(platform, box) == (0, False)
    assert (await platform.events(box))[-2:] == [(1, "credential_lost"), (1, "alive")]


async def test_row_older_generation_410_superseded_shutdown_terminate_that_instance_and_no_count(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = await (await platform.replaced(old)).enter()
    await locate(platform, new, rows.ELSEWHERE)
    # Normally it is revoked with its generation; the response must not depend on that.
    await platform.database.execute(
        "UPDATE tokens SET state = 'active' WHERE workspace_id = %s AND generation = 1", [old.workspace_id]
    )
    calls = (
        old,
        replace(old, token=old.secret),
        replace(old, token=new.token),  # the new box's token file, on a shared volume
    )
    before = await platform.everything(new)
    for caller in calls:
        answer = await send_heartbeat(caller, FULL, secret=caller.token == new.token)
        assert refusal(answer) == (410, "superseded", "shutdown")
    assert await platform.everything(new) == before  # it is already being terminated

    await rows.age_end(platform, old)
    before = await platform.everything(new)
    for _ in range(2):
        for caller in calls:
            answer = await send_heartbeat(caller, FULL, secret=caller.token == new.token)
            assert refusal(answer) == (410, "superseded", "shutdown")
    *unchanged, event = await platform.everything(new)
    assert unchanged == before
    assert (event["generation"], event["kind"]) == (1, "superseded_call")
    assert await platform.tokens(new) == ["active", "pending"]


async def test_row_unauthenticated_401_promotes_nothing(platform: Platform) -> None:
    other = await (await platform.workspace()).enter_and_use()
    boxes = await boxes_by_what_is_live(platform)
    revoked = await (await platform.workspace()).enter_and_use()
    await revoke(platform, revoked)
    for box in (*boxes.values(), revoked):
        bare, before = replace(box, token=None), await platform.everything(box)
        missing = await send_heartbeat(bare, FULL)
        assert refusal(missing) == (401, "token_missing", "reregister")
        assert missing.headers["www-authenticate"] == "Bearer"
        assert await decided(platform, box) == ("absent", "unproven", "token_missing", False)
        for bearer in (box.token or "x", UNKNOWN_TOKEN, "two words", other.token, other.secret):
            assert refusal(await send_heartbeat(bare, FULL, bearer=bearer)) == (
                401,
                "token_invalid",
                "reregister",
            )
        assert await decided(platform, box) == ("not_valid", "unproven", "token_invalid", False)
        assert await platform.everything(box) == before


async def test_row_undetermined_503_instance_not_ready_none(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    before = await platform.everything(box)
    answer = await send_heartbeat(replace(box, generation=2, token=None), FULL, secret=True)
    assert refusal(answer) == (503, "instance_not_ready", "retry")
    # The token is of the current generation, but the secret names a later one, which is not recorded yet.
    assert refusal(await replace(box, generation=2).heartbeat(secret=True)) == (
        503,
        "instance_not_ready",
        "retry",
    )
    assert await platform.everything(box) == before


async def test_row_workspace_unknown_404_and_401_if_unproven_no_row_appears(platform: Platform) -> None:
    box = Box(platform.client, "ws-unknown", 1)
    answer = await send_heartbeat(box, FULL, secret=True)
    assert refusal(answer) == (404, "workspace_unknown", "contact_operator")
    assert refusal(await send_heartbeat(box, FULL)) == (401, "token_missing", "reregister")
    assert await platform.everything(box) == []
    assert await rows.audit_entries(platform, box) == []


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
            await send_heartbeat(box, FULL),
            await send_heartbeat(replace(box, token=None), FULL, secret=True),
        ):
            assert refusal(answer) == (410, code, "shutdown")
        unknown_caller = await send_heartbeat(replace(box, token=None), FULL)
        assert refusal(unknown_caller) == (401, "token_missing", "reregister")
    assert await platform.everything(box) == before


async def test_row_a_live_token_of_a_workspace_that_is_being_stopped_410_is_no_life(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute(
        "UPDATE workspaces SET intent = 'stop' WHERE workspace_id = %s", [box.workspace_id]
    )
    before = await platform.everything(box)
    assert refusal(await send_heartbeat(box, FULL)) == (410, "workspace_stopped", "shutdown")
    assert await platform.everything(box) == before


async def test_row_lock_not_available_503_platform_unavailable_none(database: str) -> None:
    async with platform_on(database, lock_timeout=SHORT_TIMEOUT) as platform:
        box = await (await platform.workspace()).enter()
        before, audit_entries = await platform.everything(box), await rows.audit_entries(platform, box)
        async with platform.database.transaction():
            await platform.database.execute(
                "SELECT FROM tokens WHERE workspace_id = %s FOR UPDATE", [box.workspace_id]
            )
            assert refusal(await send_heartbeat(box, FULL)) == (503, "platform_unavailable", "retry")
        assert await platform.everything(box) == before
        assert await rows.audit_entries(platform, box) == audit_entries
        await assert_counts(platform, box)
