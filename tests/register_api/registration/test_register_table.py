"""The register decision table of the protocol over HTTP, one test for each row in the table's order.

A name lists the row's columns: bearer, identity, live tokens, response, effect. The audit log shows
that this row decided.
"""

from dataclasses import replace
from datetime import timedelta
from typing import LiteralString

import pytest

from register_api.auth.rules import SUCCESSORS_LIMIT
from tests.register_api import rows
from tests.register_api.platform import SHORT_TIMEOUT, Box, Platform, platform_on
from tests.register_api.rows import (
    LATER,
    UNKNOWN_TOKEN,
    boxes_by_what_is_live,
    decided,
    refusal,
    revoke,
    token_of,
)

pytestmark = pytest.mark.anyio

FORGED_SECRETS = ("ob1.k9.1." + "x" * 43, "ob1.k1.1." + "x" * 43)
"""With an unknown key, and with a known one."""

TOKENS: LiteralString = "SELECT * FROM tokens WHERE workspace_id = %s ORDER BY created_at"
GENERATION: LiteralString = "SELECT * FROM generations WHERE workspace_id = %s AND superseded_at IS NULL"


async def test_row_any_lock_not_available_503_platform_unavailable_fail_closed(database: str) -> None:
    async with platform_on(database, lock_timeout=SHORT_TIMEOUT) as platform:
        box = await (await platform.workspace()).enter()
        before, audit_entries = await platform.everything(box), await rows.audit_entries(platform, box)
        async with platform.database.transaction():
            await platform.database.execute(
                "SELECT FROM generations WHERE workspace_id = %s FOR UPDATE", [box.workspace_id]
            )
            for answer in (await box.register(), await replace(box, token=None).register(secret=True)):
                assert refusal(answer) == (503, "platform_unavailable", "retry")
        assert await platform.everything(box) == before
        assert await rows.audit_entries(platform, box) == audit_entries
        async with platform.database.transaction():  # an unproven caller never waits for the lock
            await platform.database.execute(
                "SELECT FROM generations WHERE workspace_id = %s FOR UPDATE", [box.workspace_id]
            )
            assert (await replace(box, token=None).register()).status_code == 401


async def test_row_any_workspace_unknown_404_and_401_if_unproven_no_row_appears(platform: Platform) -> None:
    box = Box(platform.client, "ws-unknown", 1)
    for answer in (await box.register(bearer=box.secret), await box.register(secret=True)):
        assert refusal(answer) == (404, "workspace_unknown", "contact_operator")
    assert refusal(await box.register()) == (401, "token_missing", "contact_operator")
    assert refusal(await box.register(bearer=UNKNOWN_TOKEN)) == (401, "token_invalid", "contact_operator")
    assert await platform.everything(box) == []
    assert await rows.audit_entries(platform, box) == []


@pytest.mark.parametrize(
    ("intent", "done", "code"),
    [
        ("stop", False, "workspace_stopped"),
        ("delete", False, "workspace_removed"),
        ("delete", True, "workspace_removed"),
    ],
)
async def test_row_any_workspace_deleted_or_stopped_by_intent_410_and_401_if_unproven_none(
    platform: Platform, intent: str, done: bool, code: str
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.intend(box, intent)
    await platform.database.execute(
        "UPDATE workspaces SET deleted_at = CASE WHEN %s THEN now() END WHERE workspace_id = %s",
        [done, box.workspace_id],
    )
    await rows.age_end(platform, box)
    before, bare = await platform.everything(box), replace(box, token=None)
    for answer in (
        await box.register(),
        await box.register(secret=True),
        await bare.register(bearer=box.secret),
        await replace(bare, generation=2).register(secret=True),
    ):
        assert refusal(answer) == (410, code, "shutdown")
    assert refusal(await bare.register()) == (401, "token_missing", "contact_operator")
    assert refusal(await bare.register(bearer=UNKNOWN_TOKEN)) == (401, "token_invalid", "contact_operator")
    assert await platform.everything(box) == before  # and no event reports a superseded call


async def test_row_any_even_live_superseded_410_superseded_shutdown_terminate_that_instance_and_alert(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = await (await platform.replaced(old)).enter_and_use()
    await platform.database.execute(
        "UPDATE tokens SET state = 'active' WHERE workspace_id = %s AND generation = 1", [old.workspace_id]
    )
    before = await platform.everything(new)
    assert refusal(await old.register()) == (410, "superseded", "shutdown")
    assert await platform.everything(new) == before  # it is already being terminated

    await rows.age_end(platform, old)
    before = await platform.everything(new)
    for answer in (
        await old.register(url="http://10.0.0.6:8000"),
        await old.register(bearer=old.secret),
        await replace(old, token=None).register(secret=True),
        await replace(old, token=new.token).register(secret=True, url="http://10.0.0.6:8000"),
    ):
        assert refusal(answer) == (410, "superseded", "shutdown")
    *unchanged, event = await platform.everything(new)
    assert unchanged == before
    assert (event["generation"], event["kind"]) == (1, "superseded_call")
    hits = (await rows.audit_entries(platform, old))[-5:]
    assert [bearer for bearer, *_ in hits] == ["not_valid"] * 4 + ["active"]
    assert {tuple(hit) for _, *hit in hits} == {("superseded", "superseded", True)}


async def test_row_active_current_200_no_token_url_and_card(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    [before], events = await platform.rows(TOKENS, box), await platform.events(box)
    card = {"name": "agent"}
    answer = await box.register(url="http://10.0.0.7:8000", agent_card=card, delivery_mode="push")
    assert token_of(answer) is None
    [generation] = await platform.rows(GENERATION, box)
    assert (generation["url"], generation["agent_card"], generation["delivery_mode"]) == (
        "http://10.0.0.7:8000", card, "push",
    )  # fmt: skip
    [after] = await platform.rows(TOKENS, box)
    assert after == before | {"last_used_at": after["last_used_at"]}
    assert after["last_used_at"] > before["last_used_at"]
    assert await platform.events(box) == events
    assert await decided(platform, box) == ("active", "current", "registered", False)


async def test_row_pending_current_200_no_token_confirm_and_predecessor_revoked(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.age(old, LATER)
    new = await replace(old, token=None).enter()
    assert await platform.tokens(old) == ["retiring", "pending"]
    assert token_of(await new.register(url="http://10.0.0.7:8000")) is None
    assert await platform.tokens(old) == ["revoked", "active"]
    confirmed = (await platform.rows(TOKENS, old))[1]
    assert (confirmed["nonce"], confirmed["last_used_at"] is None) == (None, False)
    [generation] = await platform.rows(GENERATION, new)
    assert generation["url"] == "http://10.0.0.7:8000"
    assert await decided(platform, new) == ("pending", "current", "confirmed", False)
    assert refusal(await old.register()) == (401, "token_invalid", "contact_operator")
    assert token_of(await new.register()) is None


async def test_row_retiring_current_200_and_its_successors_token_audit(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.age(old, LATER)
    new = await replace(old, token=None).enter()
    [_, successor] = await platform.rows(TOKENS, old)
    for _ in range(2):
        assert token_of(await old.register()) == new.token
        assert await decided(platform, old) == ("retiring", "current", "replayed", False)
    assert await platform.tokens(old) == ["retiring", "pending"]
    assert (await platform.rows(TOKENS, old))[1] == successor


async def test_row_not_valid_undetermined_any_503_instance_not_ready_none(platform: Platform) -> None:
    for box in (await boxes_by_what_is_live(platform)).values():
        before = await platform.everything(box)
        early = replace(box, generation=2)  # its launch is not recorded
        for answer in (
            await early.register(secret=True),
            await early.register(bearer=early.secret),
            await early.register(bearer=UNKNOWN_TOKEN, secret=True),
        ):
            assert refusal(answer) == (503, "instance_not_ready", "retry")
        assert await platform.everything(box) == before
        assert await decided(platform, box) == ("not_valid", "undetermined", "instance_not_ready", False)


@pytest.mark.parametrize("how", ["absent", "secret_as_bearer", "stale", "revoked"])
async def test_row_not_valid_stale_included_current_0_200_and_token_mint_the_gate_is_open_again(
    platform: Platform, how: str
) -> None:
    box = await platform.workspace()
    match how:
        case "stale":
            old = await box.enter_and_use()
            box = replace(await platform.replaced(old), token=old.token)
        case "revoked":
            box = await box.enter_and_use()
            await revoke(platform, box)
    before = await platform.tokens(box)
    with_secret = how != "secret_as_bearer"
    answer = await box.register(bearer=None if with_secret else box.secret, secret=with_secret)
    token = token_of(answer)
    assert token is not None
    assert token != box.token
    assert await platform.tokens(box) == [*before, "pending"]
    assert (await platform.rows(TOKENS, box))[-1]["generation"] == box.generation
    assert (await platform.events(box)).count((box.generation, "registered")) == 1
    assert await decided(platform, box) == ("not_valid", "current", "minted", False)
    assert (await box.heartbeat(bearer=token)).status_code == 200


async def test_row_not_valid_current_1_pending_200_and_the_same_token_replay(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    before, events = await platform.rows(TOKENS, box), await platform.events(box)
    bare = replace(box, token=None)
    for answer in (
        await bare.register(secret=True),
        await bare.register(bearer=box.secret),
        await bare.register(bearer=UNKNOWN_TOKEN, secret=True),
    ):
        assert token_of(answer) == box.token
        assert await decided(platform, box) == ("not_valid", "current", "replayed", False)
    assert await platform.rows(TOKENS, box) == before
    assert await platform.events(box) == events


async def test_row_not_valid_current_active_used_less_than_60_s_ago_503_token_in_use_none(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.age(box, timedelta(seconds=10))
    before = await platform.everything(box)
    bare = replace(box, token=None)
    for answer in (
        await bare.register(secret=True, url="http://10.0.0.7:8000"),
        await bare.register(bearer=box.secret),
        await bare.register(bearer=UNKNOWN_TOKEN, secret=True),
    ):
        assert refusal(answer) == (503, "token_in_use", "retry")
        assert 1 <= int(answer.headers["retry-after"]) == answer.json()["retry_after"] <= 50
    assert await platform.everything(box) == before
    assert await decided(platform, box) == ("not_valid", "current", "token_in_use", False)


async def test_row_not_valid_current_active_quiet_200_and_new_token_old_one_retiring(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.age(box, LATER)
    token = token_of(await replace(box, token=None).register(secret=True))
    assert token not in (None, box.token)
    assert await platform.tokens(box) == ["retiring", "pending"]
    assert await decided(platform, box) == ("not_valid", "current", "minted", False)
    assert (await box.heartbeat()).status_code == 200  # the old token's holder is not locked out
    assert await platform.tokens(box) == ["retiring", "pending"]


async def test_row_not_valid_current_active_quiet_503_mint_limited_and_alert_after_5_in_10_min(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(SUCCESSORS_LIMIT):
        await platform.age(box, LATER)
        box = await replace(box, token=None).enter_and_use()
    await platform.age(box, LATER)
    before = await platform.everything(box)
    answer = await replace(box, token=None).register(secret=True)
    assert refusal(answer) == (503, "mint_limited", "retry")
    assert await platform.everything(box) == before
    assert await decided(platform, box) == ("not_valid", "current", "mint_limited", True)
    await platform.age(box, timedelta(minutes=10))
    assert token_of(await replace(box, token=None).register(secret=True)) is not None


async def test_row_absent_unproven_any_401_missing_workspace_auth_token_audit_alert_if_none_is_live(
    platform: Platform,
) -> None:
    for live, box in (await boxes_by_what_is_live(platform)).items():
        before = await platform.everything(box)
        answer = await box.register(url="http://10.0.0.7:8000")
        assert refusal(answer) == (401, "token_missing", "contact_operator")
        assert answer.json()["error"] == "missing workspace auth token"
        assert answer.headers["www-authenticate"] == "Bearer"
        assert await platform.everything(box) == before
        assert await decided(platform, box) == ("absent", "unproven", "token_missing", live == "none")


async def test_row_other_unproven_any_401_invalid_workspace_auth_token_audit_alert_if_none_is_live(
    platform: Platform,
) -> None:
    other = await (await platform.workspace()).enter_and_use()
    boxes = await boxes_by_what_is_live(platform)
    revoked = await (await platform.workspace()).enter_and_use()
    await revoke(platform, revoked)
    for live, box in {**boxes, "none any more": revoked}.items():
        before = await platform.everything(box)
        for bearer in (box.token, UNKNOWN_TOKEN, "two words", other.token, other.secret, *FORGED_SECRETS):
            answer = await box.register(bearer=bearer or "x")
            assert refusal(answer) == (401, "token_invalid", "contact_operator")
            assert answer.json()["error"] == "invalid workspace auth token"
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert await platform.everything(box) == before
        assert await decided(platform, box) == (
            "not_valid", "unproven", "token_invalid", live.startswith("none"),
        )  # fmt: skip
