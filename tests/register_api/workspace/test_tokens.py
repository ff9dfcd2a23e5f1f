"""Listing, creating and revoking the tokens of a workspace."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from register_api.workspace.tokens import API_TOKENS_LIMIT
from tests.register_api.platform import OPERATOR_TOKEN, Box, Platform

pytestmark = pytest.mark.anyio


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


async def index(box: Box, token: str | None = OPERATOR_TOKEN) -> httpx2.Response:
    return await box.client.get(f"/workspaces/{box.workspace_id}/tokens", headers=bearer(token))


async def create(box: Box, token: str | None = OPERATOR_TOKEN, **body: Any) -> httpx2.Response:
    path = f"/workspaces/{box.workspace_id}/tokens"
    return await box.client.post(path, json=body, headers=bearer(token))


async def revoke(box: Box, token_id: object, token: str | None = OPERATOR_TOKEN) -> httpx2.Response:
    path = f"/workspaces/{box.workspace_id}/tokens/{token_id}"
    return await box.client.delete(path, headers=bearer(token))


async def test_a_token_is_shown_once_and_known_by_its_prefix_after(platform: Platform) -> None:
    box = await platform.workspace()
    answer = await create(box, name="nightly report")
    created = answer.json()
    assert answer.status_code == 201
    assert len(created["auth_token"]) == 43
    assert (created["workspace_id"], created["name"]) == (box.workspace_id, "nightly report")
    listed = await index(box)
    [token] = listed.json()["tokens"]
    assert listed.json()["count"] == 1
    assert (token["id"], token["prefix"]) == (created["id"], created["auth_token"][:8])
    assert (token["kind"], token["name"], token["created_by"]) == ("api", "nightly report", "operator")
    assert token["last_used_at"] is None
    assert created["auth_token"] not in listed.text
    assert created["auth_token"] not in str(await platform.rows(API_TOKENS, box))


API_TOKENS = "SELECT * FROM api_tokens WHERE workspace_id = %s"


async def test_an_empty_body_makes_a_token_without_a_name(platform: Platform) -> None:
    box = await platform.workspace()
    answer = await box.client.post(f"/workspaces/{box.workspace_id}/tokens", headers=bearer(OPERATOR_TOKEN))
    assert (answer.status_code, answer.json()["name"]) == (201, "")


async def test_the_current_box_manages_the_tokens_of_its_workspace(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    assert box.token is not None
    created = await create(box, box.token)
    assert created.status_code == 201
    kinds = [
        (it["kind"], it["state"], it["generation"]) for it in (await index(box, box.token)).json()["tokens"]
    ]
    assert kinds == [("instance", "active", 1), ("api", "active", None)]
    api = (await index(box)).json()["tokens"][1]
    assert api["created_by"] == f"instance {box.token[:8]}"
    assert (await revoke(box, created.json()["id"], box.token)).json() == {"status": "revoked"}


async def test_others_cannot_manage_tokens(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    other = await (await platform.workspace()).enter_and_use()
    api = (await create(box)).json()
    before = (await index(box)).json()
    codes = {None: "token_missing", other.token: "token_invalid", "x" * 43: "token_invalid"}
    codes |= {api["auth_token"]: "forbidden", box.secret: "reregister_required"}
    for token, code in codes.items():
        for answer in (
            await index(box, token),
            await create(box, token),
            await revoke(box, api["id"], token),
        ):
            assert answer.json()["code"] == code
            assert answer.status_code == (403 if code == "forbidden" else 401)
    after = (await index(box)).json()
    for shown in (before, after):  # presenting a token counts as its use
        for it in shown["tokens"]:
            it.pop("last_used_at")
    assert after == before


async def test_an_api_token_reads_and_its_use_is_noted(platform: Platform) -> None:
    box = await platform.workspace()
    token = (await create(box)).json()["auth_token"]
    answer = await box.record(bearer=token)
    assert (answer.status_code, answer.json()["workspace_id"]) == (200, box.workspace_id)
    assert (await index(box)).json()["tokens"][0]["last_used_at"] is not None
    other = await platform.workspace()
    assert (await other.record(bearer=token)).status_code == 401


async def test_an_api_token_is_no_evidence_of_a_box(platform: Platform) -> None:
    box = await platform.workspace()
    token = (await create(box)).json()["auth_token"]
    for answer in (await box.register(bearer=token), await box.heartbeat(bearer=token)):
        assert (answer.status_code, answer.json()["code"]) == (401, "token_invalid")
    assert (await box.state(bearer=token)).status_code == 401
    assert await platform.tokens(box) == []
    assert await platform.events(box) == []


async def test_an_api_token_survives_a_recreate_and_a_stop(platform: Platform) -> None:
    box = await platform.workspace()
    token = (await create(box)).json()["auth_token"]
    new = await platform.replaced(box)
    assert (await new.record(bearer=token)).status_code == 200
    await platform.intend(new, "stop")
    assert (await new.record(bearer=token)).json()["phase"] == "stopping"


async def test_a_revoked_token_is_dead_at_once(platform: Platform) -> None:
    box = await platform.workspace()
    created = (await create(box)).json()
    assert (await revoke(box, created["id"])).json() == {"status": "revoked"}
    assert (await box.record(bearer=created["auth_token"])).status_code == 401
    assert (await index(box)).json()["tokens"] == []
    again = await revoke(box, created["id"])
    assert (again.status_code, again.json()["code"]) == (404, "token_unknown")


async def test_revoking_an_instances_token_opens_the_gate_for_its_box_only(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    [token] = (await index(box)).json()["tokens"]
    assert (await revoke(box, token["id"])).status_code == 200
    assert (await box.heartbeat()).status_code == 401
    assert (await box.register()).status_code == 401
    new = await replace(box, token=None).enter()
    assert new.token != box.token


async def test_what_is_no_token_of_the_workspace_is_not_revoked(platform: Platform) -> None:
    box, other = await platform.workspace(), await platform.workspace()
    theirs = (await create(other)).json()
    for token_id in (theirs["id"], uuid4(), "not-a-uuid", "%00", "0" * 400):
        answer = await revoke(box, token_id)
        assert (answer.status_code, answer.json()["code"]) == (404, "token_unknown")
    assert (await other.record(bearer=theirs["auth_token"])).status_code == 200


async def test_there_is_an_end_to_the_tokens_of_a_workspace(platform: Platform) -> None:
    box = await platform.workspace()
    for _ in range(API_TOKENS_LIMIT):
        assert (await create(box)).status_code == 201
    answer = await create(box)
    assert (answer.status_code, answer.json()["code"]) == (409, "tokens_limited")
    first = (await index(box)).json()["tokens"][0]
    await revoke(box, first["id"])
    assert (await create(box)).status_code == 201


async def test_a_deleted_workspace_gets_no_token(platform: Platform) -> None:
    box = await platform.workspace()
    await platform.intend(box, "delete")
    answer = await create(box)
    assert (answer.status_code, answer.json()["code"]) == (404, "workspace_unknown")


@pytest.mark.parametrize("body", [{"name": 5}, {"name": "x" * 101}, {"name": "a\nb"}])
async def test_a_name_that_does_not_fit_is_a_400(platform: Platform, body: dict[str, Any]) -> None:
    box = await platform.workspace()
    answer = await create(box, **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "body_invalid")
    assert answer.json()["error"].startswith("name")


async def test_who_made_and_revoked_a_token_is_in_the_audit_log(platform: Platform) -> None:
    box = await platform.workspace()
    created = (await create(box)).json()
    await revoke(box, created["id"])
    rows = await platform.rows("SELECT * FROM audit_log WHERE workspace_id = %s ORDER BY audit_id", box)
    assert [(row["operation"], row["code"], row["token_prefix"]) for row in rows] == [
        ("token created by operator", "created", created["prefix"]),
        ("token revoked by operator", "revoked", created["prefix"]),
    ]
