"""Register over HTTP: responses and writes beyond the decision table."""

import asyncio
from dataclasses import replace
from typing import LiteralString

import pytest

from tests.register_api.platform import Platform

pytestmark = pytest.mark.anyio

CURRENT_GENERATION: LiteralString = (
    "SELECT * FROM generations WHERE workspace_id = %s AND superseded_at IS NULL"
)


async def test_only_the_first_register_of_a_generation_is_an_event(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    [before] = await platform.rows(CURRENT_GENERATION, box)
    await box.register()
    [after] = await platform.rows(CURRENT_GENERATION, box)
    assert await platform.events(box) == [(1, "registered")]
    assert before["registered_at"] == after["registered_at"] < after["last_register_at"]


async def test_a_box_sends_its_url_and_card_and_omitted_members_stay(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    card = {"name": "agent", "skills": [{"id": "s"}]}
    await box.register(url="http://10.0.0.7:8000/a2a", agent_card=card, delivery_mode="push", kind="x")
    await box.register()
    await replace(box, token=None).register(secret=True)  # refused: the token is in use
    [row] = await platform.rows(CURRENT_GENERATION, box)
    assert (row["url"], row["agent_card"], row["delivery_mode"]) == ("http://10.0.0.7:8000/a2a", card, "push")


async def test_a_pending_token_whose_key_was_taken_out_of_service_is_replaced(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute(
        "UPDATE tokens SET key_id = 'gone' WHERE workspace_id = %s", [box.workspace_id]
    )
    again = await replace(box, token=None).enter()
    assert again.token != box.token
    assert await platform.tokens(box) == ["revoked", "pending"]


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


async def test_two_authorization_headers_are_none(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    headers = [("authorization", f"Bearer {box.token}"), ("authorization", "Bearer x")]
    answer = await box.client.post("/registry/register", json={"id": box.workspace_id}, headers=headers)
    assert answer.status_code == 401
