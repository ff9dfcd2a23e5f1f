"""The list of a workspace's delegations: its content, order and readers."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.register_api.delegation.delegating import (
    OPERATOR,
    STATUSES,
    api_token,
    at_address,
    bearer,
    become,
    delegated,
    listed,
    record,
    said,
    working,
)
from tests.register_api.platform import Platform

pytestmark = pytest.mark.anyio

MEMBERS = {
    "id",
    "type",
    "source_id",
    "target_id",
    "summary",
    "status",
    "state",
    "created_at",
    "delegation_id",
}


async def test_a_row_has_the_members_of_the_protocol_and_no_others(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    assert await listed(source) == []
    first = await delegated(source, target, task="字" * 300)
    [shown] = await listed(source)
    assert set(shown) == MEMBERS
    assert shown["id"] == shown["delegation_id"] == first
    assert (shown["type"], shown["status"], shown["state"]) == ("delegate", "queued", "queued")
    assert (shown["source_id"], shown["target_id"]) == (source.workspace_id, target.workspace_id)
    assert shown["summary"] == "字" * 200
    created_at = datetime.fromisoformat(shown["created_at"])
    assert created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - created_at) < timedelta(minutes=1)
    await record(source, target, "of-its-own")
    assert [it["type"] for it in await listed(source)] == ["record", "delegate"]


@pytest.mark.parametrize("state", STATUSES)
async def test_the_state_is_the_true_one_and_the_status_the_old_word(platform: Platform, state: str) -> None:
    source, target = await working(platform), await platform.workspace()
    await become(platform, await delegated(source, target), state)
    [shown] = await listed(source)
    assert (shown["state"], shown["status"]) == (state, STATUSES[state])
    # only a failed delegation has an error
    assert shown.get("error") == (state if STATUSES[state] == "failed" else None)
    assert set(shown) == MEMBERS | ({"error"} if STATUSES[state] == "failed" else set())


async def test_error_and_preview_are_shown_where_there_are_some(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    await become(platform, await delegated(source, target), "processed", response_preview="it is well")
    await become(platform, await delegated(source, target), "failed", error="no sheep", response_preview="0")
    failed, processed = await listed(source)
    assert (failed["error"], failed["response_preview"]) == ("no sheep", "0")
    assert processed["response_preview"] == "it is well"
    assert "error" not in processed


async def test_the_newest_come_first_and_fifty_at_most(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    made = [await delegated(source, target) for _ in range(52)]
    for headers in (source.headers(), OPERATOR):
        assert [it["id"] for it in await listed(source, headers=headers)] == made[:1:-1]


async def test_ends_that_were_not_shown_go_before_newer_work_and_stand_in_its_order(
    platform: Platform,
) -> None:
    source, target = await working(platform), await platform.workspace()
    made = [await delegated(source, target) for _ in range(60)]
    await become(platform, made[3], "processed")
    assert [it["id"] for it in await listed(source)] == [*made[:10:-1], made[3]]
    # an operator sees the newest, whatever was shown before
    assert [it["id"] for it in await listed(source, headers=OPERATOR)] == made[:9:-1]


async def test_no_list_shows_a_canary_or_delegations_of_others(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    other = await working(platform)
    await platform.database.execute(
        "INSERT INTO delegations (delegation_id, type, target_id, task) VALUES (%s, 'canary', %s, 'alive?')",
        [f"canary-{target.workspace_id}", target.workspace_id],
    )
    theirs = await delegated(other, target)
    await become(platform, theirs, "processed", response_preview="theirs")
    for box in (source, target):
        for headers in (box.headers(), OPERATOR, bearer(await api_token(box))):
            assert await listed(box, headers=headers) == []
    assert [it["id"] for it in await listed(other)] == [theirs]


async def test_who_may_not_read_the_workspace_reads_no_list(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    await at_address(platform, source)  # an address does not allow reading
    await become(platform, await delegated(source, target), "processed")
    path = f"/workspaces/{source.workspace_id}/delegations"
    for token in (None, "x" * 43, target.token, await api_token(target), source.secret):
        assert (await source.client.get(path, headers=bearer(token))).status_code == 401
    assert (await source.client.get("/workspaces/nowhere/delegations", headers=OPERATOR)).status_code == 404
    new = await (await platform.replaced(source)).enter_and_use()
    assert (await source.client.get(path, headers=source.headers())).status_code == 410
    # none of these counts as the source's poll: its result still precedes sixty newer delegations
    await platform.database.execute(
        "INSERT INTO delegations (delegation_id, type, source_id, target_id, task)"
        " SELECT 'newer-' || n, 'delegate', %s, %s, 'x' FROM generate_series(1, 60) n",
        [source.workspace_id, target.workspace_id],
    )
    assert [it["status"] for it in await listed(new)] == ["queued"] * 49 + ["completed"]


async def test_an_end_that_was_shown_is_never_another_one_later(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    delegation = await delegated(source, target)
    assert await said(target, delegation, "completed", response_preview="first") == "completed"
    before = await listed(source)
    for word in ("failed", "in_progress", "queued", "completed"):
        assert await said(target, delegation, word, response_preview="second", error="e") == "completed"
        assert await listed(source) == before
