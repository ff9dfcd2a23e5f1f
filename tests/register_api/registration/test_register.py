"""Registering over HTTP: what is answered, and what is written."""

import asyncio
import math
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import LiteralString

import pytest

from register_api.auth.rules import SUCCESSORS_LIMIT
from tests.register_api.platform import Box, Platform, insisting

pytestmark = pytest.mark.anyio

LATER = timedelta(seconds=61)
CURRENT_GENERATION: LiteralString = (
    "SELECT * FROM generations WHERE workspace_id = %s AND superseded_at IS NULL"
)


async def test_the_bootstrap_secret_gets_a_token_as_bearer_or_in_its_own_header(platform: Platform) -> None:
    for as_bearer in (True, False):
        box = await platform.workspace()
        answer = await box.register(bearer=box.secret if as_bearer else None, secret=not as_bearer)
        assert answer.status_code == 200
        assert answer.json().keys() == {"status", "auth_token"}
        assert len(answer.json()["auth_token"]) == 43
        assert await platform.tokens(box) == ["pending"]


async def test_a_lost_answer_costs_nothing_the_token_is_the_same_until_it_is_used(platform: Platform) -> None:
    box = await platform.workspace()
    answers = [(await box.register(secret=True)).json()["auth_token"] for _ in range(3)]
    assert len(set(answers)) == 1
    assert await platform.tokens(box) == ["pending"]


async def test_sixteen_calls_at_once_get_one_token(platform: Platform) -> None:
    box = await platform.workspace()
    register = partial(box.register, secret=True)
    answers = await asyncio.gather(*(insisting(register) for _ in range(16)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["auth_token"] for answer in answers}) == 1
    assert await platform.tokens(box) == ["pending"]
    assert await platform.facts(box) == [(1, "registered")]


async def test_registering_with_the_pending_token_confirms_it(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    answer = await box.register()
    assert (answer.status_code, answer.json()) == (200, {"status": "registered"})
    assert await platform.tokens(box) == ["active"]
    [row] = await platform.rows("SELECT nonce, last_used_at FROM tokens WHERE workspace_id = %s", box)
    assert row["nonce"] is None
    assert row["last_used_at"] is not None


async def test_only_the_first_register_of_a_generation_is_a_fact(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    [before] = await platform.rows(CURRENT_GENERATION, box)
    await box.register()
    [after] = await platform.rows(CURRENT_GENERATION, box)
    assert await platform.facts(box) == [(1, "registered")]
    assert before["registered_at"] == after["registered_at"] < after["last_register_at"]


async def test_a_box_tells_its_url_and_card_and_what_it_leaves_out_stays(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    card = {"name": "agent", "skills": [{"id": "s"}]}
    await box.register(url="http://10.0.0.7:8000/a2a", agent_card=card, delivery_mode="push", kind="x")
    await box.register()
    await replace(box, token=None).register(secret=True)  # refused: the token is in use
    [row] = await platform.rows(CURRENT_GENERATION, box)
    assert (row["url"], row["agent_card"], row["delivery_mode"]) == ("http://10.0.0.7:8000/a2a", card, "push")


async def test_the_gate_opens_again_when_no_token_is_live(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.database.execute(
        "UPDATE tokens SET state = 'revoked' WHERE workspace_id = %s", [box.workspace_id]
    )
    answer = await box.register(secret=True)  # with its stale bearer
    assert answer.status_code == 200
    assert answer.json()["auth_token"] != box.token
    assert await platform.tokens(box) == ["revoked", "pending"]


async def test_a_revoked_token_alone_proves_nothing(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.database.execute(
        "UPDATE tokens SET state = 'revoked' WHERE workspace_id = %s", [box.workspace_id]
    )
    for answer in (await box.register(), await box.beat(), await box.record(), await box.state()):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_a_lost_token_is_replaced_once_it_was_quiet_and_retires_until_the_new_one_is_used(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    bare = replace(old, token=None)

    most = await _quiet_in(platform, old)
    early = await bare.register(secret=True)
    least = await _quiet_in(platform, old)
    assert (early.status_code, early.json()["code"]) == (503, "token_in_use")
    assert 1 <= least <= int(early.headers["retry-after"]) <= most <= 60

    await platform.age(old, LATER)
    new = await bare.enter()
    assert new.token != old.token
    assert await platform.tokens(old) == ["retiring", "pending"]
    assert (await old.beat()).status_code == 200
    assert (await old.register()).json()["auth_token"] == new.token
    assert await platform.tokens(old) == ["retiring", "pending"]

    assert (await new.register()).status_code == 200
    assert await platform.tokens(old) == ["revoked", "active"]
    assert (await old.beat()).status_code == 401


async def _quiet_in(platform: Platform, box: Box) -> int:
    """How many seconds are left now until the box's one token counts as quiet."""
    query: LiteralString = "SELECT now() - last_used_at AS unused FROM tokens WHERE workspace_id = %s"
    [row] = await platform.rows(query, box)
    unused: timedelta = row["unused"]
    return math.ceil(60 - unused.total_seconds())


async def test_a_box_that_loses_its_tokens_again_and_again_is_slowed_down(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(SUCCESSORS_LIMIT):
        await platform.age(box, LATER)
        await replace(box, token=None).enter_and_use()
    await platform.age(box, LATER)
    answer = await replace(box, token=None).register(secret=True)
    assert (answer.status_code, answer.json()["code"]) == (503, "mint_limited")
    await platform.age(box, timedelta(minutes=10))
    assert (await replace(box, token=None).register(secret=True)).status_code == 200


async def test_a_pending_token_whose_key_was_taken_out_of_service_is_replaced(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute(
        "UPDATE tokens SET key_id = 'gone' WHERE workspace_id = %s", [box.workspace_id]
    )
    again = await replace(box, token=None).enter()
    assert again.token != box.token
    assert await platform.tokens(box) == ["revoked", "pending"]


async def test_an_old_box_changes_nothing_whatever_it_holds(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = await platform.replaced(old)
    new = await new.enter_and_use()
    await new.register(url="http://10.0.0.8:8000")
    before = await platform.everything(new)

    calls = [
        await old.register(url="http://10.0.0.7:8000"),
        await old.register(secret=True),
        await replace(old, token=None).register(secret=True),
        await replace(old, token=None).register(bearer=old.secret),
        await old.beat(),
        await old.beat(secret=True),
        # the file of the new box, on a volume that both can write to
        await replace(old, token=new.token).register(secret=True, url="http://10.0.0.7:8000"),
        await replace(old, token=new.token).beat(secret=True),
    ]
    for answer in calls:
        assert (answer.status_code, answer.json()["code"]) == (410, "superseded")
        assert (answer.json()["action"], answer.json()["retryable"]) == ("shutdown", False)
    assert await platform.everything(new) == before


async def test_a_token_that_was_not_revoked_with_its_generation_is_still_of_an_old_box(
    platform: Platform,
) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.replaced(old)
    await platform.database.execute(
        "UPDATE tokens SET state = 'active' WHERE workspace_id = %s", [old.workspace_id]
    )
    before = await platform.everything(old)
    assert (await old.register()).status_code == 410
    assert (await old.beat()).status_code == 410
    assert await platform.everything(old) == before


@pytest.mark.parametrize("state", ["revoked", "active"])
async def test_a_new_box_with_the_stale_file_of_the_old_one_gets_in(platform: Platform, state: str) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = replace(await platform.replaced(old), token=old.token)
    await platform.database.execute(
        "UPDATE tokens SET state = %s WHERE workspace_id = %s", [state, old.workspace_id]
    )
    answer = await new.register(secret=True)
    assert answer.status_code == 200
    assert answer.json()["auth_token"] != old.token


async def test_a_generation_that_is_superseded_while_a_box_registers_wins(platform: Platform) -> None:
    old = await platform.workspace()
    async with platform.database.transaction():
        await platform.database.execute(
            "UPDATE generations SET superseded_at = now() WHERE workspace_id = %s", [old.workspace_id]
        )
        call = asyncio.create_task(old.register(secret=True))
        await _until_somebody_waits_for_a_lock(platform)
        await platform.database.execute(
            "INSERT INTO generations (workspace_id, generation, key_id, spec) VALUES (%s, 2, 'k1', '{}')",
            [old.workspace_id],
        )
        await platform.database.execute(
            "UPDATE workspaces SET generation = 2 WHERE workspace_id = %s", [old.workspace_id]
        )
    assert (await call).status_code == 410
    assert await platform.tokens(old) == []


async def _until_somebody_waits_for_a_lock(platform: Platform) -> None:
    async with asyncio.timeout(60), platform.pool.connection() as conn:
        while True:
            cursor = await conn.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if await cursor.fetchone() != (0,):
                return


async def test_credentials_of_other_workspaces_and_keys_prove_nothing(platform: Platform) -> None:
    box = await platform.workspace()
    other = await (await platform.workspace()).enter_and_use()
    before = await platform.everything(box)
    for bearer in (other.token, other.secret, "x" * 43, "ob1.k9.1." + "x" * 43, "ob1.k1.1." + "x" * 43, "ü"):
        answer = await box.client.post(
            "/registry/register",
            json={"id": box.workspace_id, "url": ""},
            headers={b"authorization": f"Bearer {bearer}".encode()},
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
        assert answer.json()["error"] == "invalid workspace auth token"
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert await platform.everything(box) == before


async def test_two_authorization_headers_are_none(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    headers = [("authorization", f"Bearer {box.token}"), ("authorization", "Bearer x")]
    answer = await box.client.post("/registry/register", json={"id": box.workspace_id}, headers=headers)
    assert answer.status_code == 401


async def test_a_caller_without_credentials_is_told_the_same_whatever_is_live(platform: Platform) -> None:
    fresh = await platform.workspace()
    live = await (await platform.workspace()).enter_and_use()
    replaced = await platform.replaced(await (await platform.workspace()).enter_and_use())
    stopped = await platform.workspace()
    await platform.intend(stopped, "stop")
    told = set()
    for box in (fresh, live, replaced, stopped):
        answer = await replace(box, token=None).register()
        body = answer.json()
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert body.pop("workspace_id") == box.workspace_id
        assert body.pop("request_id") == answer.headers["x-request-id"]
        told.add(answer.text.replace(box.workspace_id, "").replace(answer.headers["x-request-id"], ""))
        assert body["error"] == "missing workspace auth token"
    assert len(told) == 1


@pytest.mark.parametrize(("intent", "code"), [("stop", "workspace_stopped"), ("delete", "workspace_removed")])
async def test_a_box_of_a_workspace_that_is_over_is_told_to_shut_down(
    platform: Platform, intent: str, code: str
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.intend(box, intent)
    before = await platform.everything(box)
    for answer in (await box.register(), await box.register(secret=True), await box.beat()):
        assert (answer.status_code, answer.json()["code"]) == (410, code)
    assert await platform.everything(box) == before


async def test_an_unknown_workspace_is_a_404_and_no_row_appears(platform: Platform) -> None:
    known = await platform.workspace()
    box = replace(known, workspace_id="ws-unknown")
    for answer in (await box.register(secret=True), await box.register(), await box.beat(secret=True)):
        assert (answer.status_code, answer.json()["code"]) == (404, "workspace_unknown")
    assert await platform.everything(box) == []


async def test_a_secret_of_a_generation_that_is_not_on_record_is_asked_to_come_again(
    platform: Platform,
) -> None:
    box = replace(await platform.workspace(), generation=2)
    answer = await box.register(secret=True)
    assert (answer.status_code, answer.json()["code"]) == (503, "instance_not_ready")
