"""Discovering other workspaces' boxes, and updating a card."""

from dataclasses import replace
from typing import Any

import httpx2
import pytest

from tests.register_api.platform import CONFIG, OPERATOR_TOKEN, Box, Platform, platform_on

pytestmark = pytest.mark.anyio


async def discover(
    caller: Box, target: str, *, bearer: str | None = None, named: bool = True
) -> httpx2.Response:
    headers = caller.headers(bearer=bearer)
    if named:
        headers["x-workspace-id"] = caller.workspace_id
    return await caller.client.get(f"/registry/discover/{target}", headers=headers)


async def placed(platform: Platform, ip: str | None, url: str, **members: Any) -> Box:
    """A box with a recorded address, registered with its URL."""
    box = await (await platform.workspace()).enter_and_use()
    await platform.database.execute(
        "UPDATE generations SET private_ip = %s WHERE workspace_id = %s", [ip, box.workspace_id]
    )
    await box.register(url=url, **members)
    return box


async def test_a_box_finds_another_at_its_recorded_address(platform: Platform) -> None:
    caller = await (await platform.workspace()).enter_and_use()
    target = await placed(platform, "10.0.0.9", "http://evil.example:8000/a2a", agent_card={"name": "Ben"})
    answer = await discover(caller, target.workspace_id)
    assert answer.status_code == 200
    assert answer.json() == {"id": target.workspace_id, "url": "http://10.0.0.9:8000/a2a", "name": "Ben"}


async def test_a_box_without_a_name_is_called_by_its_id(platform: Platform) -> None:
    target = await placed(platform, "10.0.0.9", "http://x:1", agent_card={"name": 7})
    answer = await discover(target, target.workspace_id)
    assert answer.json()["name"] == target.workspace_id


async def test_discovery_needs_a_live_token(platform: Platform) -> None:
    target = await placed(platform, "10.0.0.9", "http://x:1")
    caller = await (await platform.workspace()).enter_and_use()
    assert (await discover(caller, target.workspace_id, named=False)).status_code == 401
    assert (await discover(replace(caller, token=None), target.workspace_id)).status_code == 401
    assert (await discover(caller, target.workspace_id, bearer=target.token)).status_code == 401
    assert (await discover(caller, target.workspace_id, bearer=caller.secret)).status_code == 401
    await platform.replaced(caller)
    assert (await discover(caller, target.workspace_id)).status_code == 410


async def test_operators_and_api_tokens_find_boxes_too(platform: Platform) -> None:
    target = await placed(platform, "10.0.0.9", "http://x:1")
    path = f"/workspaces/{target.workspace_id}/tokens"
    created = await target.client.post(path, json={}, headers={"authorization": f"Bearer {OPERATOR_TOKEN}"})
    for bearer in (OPERATOR_TOKEN, created.json()["auth_token"]):
        assert (await discover(target, target.workspace_id, bearer=bearer)).status_code == 200


@pytest.mark.parametrize(
    ("ip", "url"),
    [
        ("10.0.0.9", ""),
        (None, "http://x:1"),
        ("127.0.0.1", "http://x:1"),
        ("169.254.169.254", "http://x:1"),
        ("fd00:ec2::254", "http://x:1"),
    ],
)
async def test_what_may_not_or_cannot_be_called_is_not_found(
    platform: Platform, ip: str | None, url: str
) -> None:
    target = await placed(platform, ip, url)
    answer = await discover(target, target.workspace_id)
    assert (answer.status_code, answer.json()["code"]) == (503, "target_unreachable")
    assert answer.json()["action"] == "retry"


async def test_loopback_is_found_where_boxes_are_processes(database: str) -> None:
    async with platform_on(database, replace(CONFIG, allow_loopback_targets=True)) as platform:
        target = await placed(platform, "127.0.0.5", "http://x:81/p")
        assert (await discover(target, target.workspace_id)).json()["url"] == "http://127.0.0.5:81/p"


async def test_discovery_never_shuts_the_caller_down(platform: Platform) -> None:
    caller = await (await platform.workspace()).enter_and_use()
    stopped, deleted = await platform.workspace(), await platform.workspace()
    await platform.intend(stopped, "stop")
    await platform.intend(deleted, "delete")
    statuses = {stopped.workspace_id: 503, deleted.workspace_id: 404, "ws-none": 404, "Not-An-Id": 404}
    for target, status in statuses.items():
        answer = await discover(caller, target)
        assert answer.status_code == status
        assert answer.json()["action"] != "shutdown"


async def update(box: Box, card: object, **options: object) -> httpx2.Response:
    headers = box.headers(bearer=str(options["bearer"]) if "bearer" in options else None)
    body = {"workspace_id": box.workspace_id, "agent_card": card}
    return await box.client.post("/registry/update-card", json=body, headers=headers)


async def test_a_card_is_renewed_and_confirms_a_pending_token(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    answer = await update(box, {"name": "Anna", "version": "2"})
    assert (answer.status_code, answer.json()) == (200, {"status": "updated"})
    [row] = await platform.rows("SELECT agent_card FROM generations WHERE workspace_id = %s", box)
    assert row["agent_card"] == {"name": "Anna", "version": "2"}
    assert await platform.tokens(box) == ["active"]


async def test_only_a_live_token_renews_a_card(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    new = await (await platform.replaced(old)).enter_and_use()
    before = await platform.everything(new)
    assert (await update(old, {"name": "old"})).json()["code"] == "superseded"
    assert (await update(new, {"name": "x"}, bearer=new.secret)).json()["code"] == "reregister_required"
    assert (await update(replace(new, token=None), {"name": "x"})).json()["code"] == "token_missing"
    nowhere = replace(new, workspace_id="ws-none")
    assert (await update(nowhere, {})).json()["code"] == "token_invalid"
    assert (await update(nowhere, {}, bearer=nowhere.secret)).json()["code"] == "workspace_unknown"
    assert await platform.everything(new) == before


@pytest.mark.parametrize("card", [None, [], "x"])
async def test_a_card_that_is_none_is_a_400(platform: Platform, card: object) -> None:
    box = await (await platform.workspace()).enter()
    answer = await update(box, card)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")


async def test_a_nul_in_a_card_is_replaced_since_the_database_has_no_room_for_it(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    assert (await update(box, {"na\0me": ["a\0", {"b": "\0"}]})).status_code == 200
    [row] = await platform.rows("SELECT agent_card FROM generations WHERE workspace_id = %s", box)
    assert row["agent_card"] == {"na\ufffdme": ["a\ufffd", {"b": "\ufffd"}]}
