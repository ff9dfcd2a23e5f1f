"""The audit log over HTTP: its content, who may read it, and that rows are immutable."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import psycopg
import pytest

from store.registration.credentials import ServerKeys
from tests.register_api.platform import CONFIG, OPERATOR_TOKEN, Box, Platform, platform_on

pytestmark = pytest.mark.anyio


async def read_audit_log(box: Box, *, bearer: str = OPERATOR_TOKEN, **query: Any) -> httpx2.Response:
    headers = {"authorization": f"Bearer {bearer}"}
    return await box.client.get(f"/workspaces/{box.workspace_id}/audit", params=query, headers=headers)


async def decisions(box: Box) -> list[tuple[str, str, str]]:
    entries = (await read_audit_log(box)).json()["entries"]
    return [(it["call"], it["verdict"], it["code"]) for it in reversed(entries)]


async def test_an_entry_says_who_from_where_and_with_what(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    assert box.token is not None
    await platform.database.execute(
        "UPDATE generations SET private_ip = '127.0.0.1' WHERE workspace_id = %s", [box.workspace_id]
    )
    answer = await box.client.post(
        "/registry/register",
        json={"id": box.workspace_id},
        headers={**box.headers(), "x-request-id": "my-request"},
    )
    assert answer.status_code == 200
    entry = (await read_audit_log(box)).json()["entries"][0]
    entry.pop("id")
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "call": "register", "generation": 1, "verdict": "current", "bearer": "active", "code": "registered",
        "token_prefix": box.token[:8], "source": "127.0.0.1", "from_box": True, "alert": False,
        "request_id": "my-request", "repeats": 0,
    }  # fmt: skip


async def test_refused_heartbeats_reads_and_cards_are_in_it_and_counted_heartbeats_are_not(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await box.heartbeat()
    await replace(box, token=None).heartbeat(secret=True)
    await box.record(bearer="x" * 43)
    await box.record()
    body = {"workspace_id": box.workspace_id, "agent_card": {}}
    await box.client.post("/registry/update-card", json=body)
    assert await decisions(box) == [
        ("register", "current", "minted"),
        ("heartbeat", "current", "reregister_required"),
        ("read", "unproven", "token_invalid"),
        ("update-card", "unproven", "token_missing"),
    ]


async def test_the_audit_log_is_read_in_pages(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(4):
        await box.register()
    first = (await read_audit_log(box, limit=3)).json()
    assert len(first["entries"]) == 3
    second = (await read_audit_log(box, limit=3, before=first["next_before"])).json()
    assert [it["code"] for it in second["entries"]] == ["registered", "minted"]
    assert second["next_before"] is None
    ids = [it["id"] for it in first["entries"] + second["entries"]]
    assert ids == sorted(ids, reverse=True)


@pytest.mark.parametrize(
    "query",
    [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"before": -1}, {"before": 2**63}, {"before": "²"}],
)
async def test_a_page_that_cannot_be_is_a_400(platform: Platform, query: dict[str, Any]) -> None:
    answer = await read_audit_log(await platform.workspace(), **query)
    assert (answer.status_code, answer.json()["code"]) == (400, "request_invalid")
    assert "limit" in answer.json()["error"]


async def test_the_audit_log_is_for_operators_and_the_workspace_itself(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    other = await (await platform.workspace()).enter_and_use()
    assert (await read_audit_log(box, bearer=box.token or "")).status_code == 200
    assert (await read_audit_log(box, bearer=other.token or "")).status_code == 401
    assert (await read_audit_log(replace(box, workspace_id="ws-none"))).status_code == 404


async def test_no_row_can_be_changed_or_removed_before_its_time(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for statement in (
        "UPDATE audit_log SET code = 'nothing' WHERE workspace_id = %s",
        "DELETE FROM audit_log WHERE workspace_id = %s",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match="append-only"):
            await platform.database.execute(statement, [box.workspace_id])
    await platform.database.execute(
        "INSERT INTO audit_log (at, workspace_id, generation, operation, identity, credential_kind,"
        " code, from_box, needs_attention,"
        " request_id) VALUES (now() - %s, %s, 1, 'old', '', '', '', false, false, '')",
        [timedelta(days=91), box.workspace_id],
    )
    await platform.database.execute("DELETE FROM audit_log WHERE operation = 'old'")
    assert await decisions(box) == [("register", "current", "minted")]


async def test_an_unknown_workspace_leaves_no_row(platform: Platform) -> None:
    box = replace(await platform.workspace(), workspace_id="ws-unheard-of")
    await box.register(secret=True)
    await box.heartbeat()
    await box.record()
    assert await platform.rows("SELECT 1 FROM audit_log WHERE workspace_id = %s", box) == []


async def test_a_key_can_be_rotated_without_a_box_noticing(database: str) -> None:
    old, both = ServerKeys.parse("k1:" + "ab" * 32), ServerKeys.parse(f"k2:{'cd' * 32},k1:{'ab' * 32}")
    new = ServerKeys.parse("k2:" + "cd" * 32)
    async with platform_on(database, replace(CONFIG, keys=old)) as platform:
        box = await (await platform.workspace()).enter()
    async with platform_on(database, replace(CONFIG, keys=both)) as platform:
        box = replace(box, client=platform.client)
        # The box's secret and its pending token are from the old key; both stay valid.
        again = await replace(box, token=None).enter()
        assert again.token == box.token
        assert (await box.heartbeat()).status_code == 200
        await platform.age(box, timedelta(seconds=61))
        successor = await replace(box, token=None).enter_and_use()
        rows = await platform.rows(
            "SELECT key_id FROM tokens WHERE workspace_id = %s ORDER BY created_at", box
        )
        assert [row["key_id"] for row in rows] == ["k1", "k2"]
    async with platform_on(database, replace(CONFIG, keys=new)) as platform:
        box = replace(successor, client=platform.client)
        assert (await box.heartbeat()).status_code == 200  # a token stays valid without its key
        answer = await replace(box, token=None).register(secret=True)
        assert answer.json()["code"] == "token_invalid"  # a secret does not
