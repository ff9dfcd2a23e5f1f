"""Delegations that a source's runtime delivers itself and records."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from tests.register_api.delegation.delegating import (
    OPERATOR,
    api_token,
    at_address,
    bearer,
    code,
    delegated,
    made_by,
    record,
    retry_while_503,
    row,
    said,
    wakeups,
    working,
)
from tests.register_api.platform import Platform

pytestmark = pytest.mark.anyio

NOTHING: dict[str, str] = {}


async def test_it_is_written_down_under_its_own_id(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    answer = await record(source, target, "r-1", task="count the sheep")
    assert (answer.status_code, answer.json()) == (202, {"delegation_id": "r-1", "status": "recorded"})
    written = await row(platform, "r-1")
    assert (written["type"], written["state"], written["task"]) == ("record", "queued", "count the sheep")
    assert (written["source_id"], written["target_id"]) == (source.workspace_id, target.workspace_id)
    assert await wakeups(platform, "r-1") == 1


async def test_repeated_it_is_the_same_one(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    first = await record(source, target, "r-2")
    answers = await asyncio.gather(
        *(retry_while_503(lambda: record(source, target, "r-2")) for _ in range(20))
    )
    assert Counter((it.status_code, it.text) for it in answers) == {(202, first.text): 20}
    await said(source, "r-2", "completed")
    assert (await record(source, target, "r-2")).text == first.text
    assert [it["state"] for it in await made_by(platform, source)] == ["processed"]
    assert await wakeups(platform, "r-2") == 2


async def test_the_same_id_for_other_work_is_refused(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    other = await platform.workspace()
    await record(source, target, "r-3")
    before = await row(platform, "r-3")
    for answer in (await record(source, target, "r-3", task="x"), await record(source, other, "r-3")):
        assert code(answer) == (409, "idempotency_key_reused")
    assert await row(platform, "r-3") == before


async def test_an_id_that_is_anothers_is_refused(platform: Platform) -> None:
    source, target, other = [await working(platform) for _ in range(3)]
    theirs = await delegated(other, target)
    await record(other, target, "r-4")
    own = await delegated(source, target)
    await platform.database.execute(
        "INSERT INTO delegations (delegation_id, type, target_id, task)"
        " VALUES ('r-5', 'canary', %s, 'do it')",
        [target.workspace_id],
    )
    for taken in (theirs, "r-4", own, "r-5"):
        assert code(await record(source, target, taken)) == (409, "delegation_id_taken")
    assert [it["delegation_id"] for it in await made_by(platform, source)] == [own]


async def test_the_target_has_to_exist_and_to_be_another(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    assert code(await record(source, "nowhere", "r-6")) == (404, "target_unknown")
    assert code(await record(source, source, "r-6")) == (400, "target_is_source")
    await platform.intend(target, "delete")
    assert code(await record(source, target, "r-6")) == (409, "target_deleted")
    assert await made_by(platform, source) == []


async def test_ids_are_plain_words(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    wrong: list[Any] = ["", "a b", "a/b", "a\0", "é", "x" * 129, None, 7]
    for name in wrong:
        assert code(await record(source, target, name)) == (400, "body_invalid")
    for task in ("", "a\0b"):
        assert code(await record(source, target, "r-7", task=task)) == (400, "body_invalid")
    assert (await record(source, target, "x" * 128)).status_code == 202


async def test_without_a_live_token_it_is_taken_from_the_recorded_address_only(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    unproven = (NOTHING, bearer("x" * 43), bearer(await api_token(source)), OPERATOR)
    for address in (None, "10.0.0.9"):
        if address is not None:
            await at_address(platform, source, address)
        for headers in unproven:
            assert (await record(source, target, "r-8", headers=headers)).status_code == 401
        assert code(await record(source, target, "r-8", headers=NOTHING)) == (401, "token_missing")
    assert await made_by(platform, source) == []
    await at_address(platform, source)
    for number, headers in enumerate(unproven):
        assert (await record(source, target, f"r-8-{number}", headers=headers)).status_code == 202
    await platform.intend(source, "stop")
    assert (await record(source, target, "r-9", headers=NOTHING)).status_code in (401, 410)
    assert len(await made_by(platform, source)) == len(unproven)
