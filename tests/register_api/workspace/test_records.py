"""The workspace record, a box's own state, and the health probes."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import httpx2
import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from devstack.postgres import Postgres
from tests.database import empty_database, patiently_migrate
from tests.register_api.platform import OPERATOR_TOKEN, Platform, platform_on

pytestmark = pytest.mark.anyio


async def _phase(platform: Platform, workspace_id: str, phase: str) -> None:
    await platform.database.execute(
        "UPDATE workspaces SET phase = %s WHERE workspace_id = %s", [phase, workspace_id]
    )


def _heartbeat_fresh(record: httpx2.Response) -> str:
    conditions = {one["type"]: one["status"] for one in record.json()["conditions"]}
    status = conditions["HeartbeatFresh"]
    assert isinstance(status, str)
    return status


async def test_the_record_is_for_operators_and_the_current_box(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    other = await (await platform.workspace()).enter_and_use()
    assert (await box.record()).json() == (await box.record(bearer=OPERATOR_TOKEN)).json()

    told = {
        "no credential": await replace(box, token=None).record(),
        "another workspace's token": await box.record(bearer=other.token),
        "unknown token": await box.record(bearer="x" * 43),
    }
    assert {why: answer.status_code for why, answer in told.items()} == dict.fromkeys(told, 401)
    secret = await replace(box, token=None).record(secret=True)
    assert (secret.status_code, secret.json()["code"]) == (401, "reregister_required")
    await platform.replaced(box)
    assert (await box.record()).json()["code"] == "superseded"


async def test_only_operators_learn_which_workspaces_exist(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    refused = (await box.record(bearer="x" * 43)).json()
    for name in ("ws-unknown", "Not-An-Id", "%00"):
        unknown = replace(box, workspace_id=name)
        told = (await unknown.record()).json()
        assert told["code"] == "token_invalid"
        ours = {"workspace_id", "request_id"}
        assert {key: told[key] for key in told.keys() - ours} == {
            key: refused[key] for key in refused.keys() - ours
        }
        assert (await unknown.state()).json()["code"] == "token_invalid"
        answer = await unknown.record(bearer=OPERATOR_TOKEN)
        assert (answer.status_code, answer.json()["code"]) == (404, "workspace_unknown")


async def test_the_record_shows_what_is_known(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await box.register(url="http://10.0.0.7:8000")
    last_error = {"code": "launch_refused", "phase": "launch"}
    stored = [
        {"type": "Registered", "status": "true"},
        {"type": "HeartbeatFresh", "status": "unknown"},
    ]
    await platform.database.execute(
        "UPDATE workspaces SET phase = 'online', dns_name = 'x.boxes', last_error = %s, conditions = %s"
        " WHERE workspace_id = %s",
        [Jsonb(last_error), Jsonb(stored), box.workspace_id],
    )
    await platform.database.execute(
        "UPDATE generations SET instance_id = 'i-0123', private_ip = '10.0.0.7' WHERE workspace_id = %s",
        [box.workspace_id],
    )
    for hours, outcome in ((1, "accepted"), (2, "accepted"), (25, "accepted"), (1, "joined")):
        await platform.database.execute(
            "INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, force,"
            " decided_at, outcome,"
            " generation, detail)"
            " VALUES (%s, gen_random_uuid(), 'recreate', '', '', false, now() - %s, %s, 1, '')",
            [box.workspace_id, timedelta(hours=hours), outcome],
        )
    record = (await box.record()).json()
    assert record.pop("last_heartbeat_at").endswith("Z")
    conditions = record.pop("conditions")
    assert record == {
        "workspace_id": box.workspace_id,
        "phase": "online",
        "generation": 1,
        "instance_id": "i-0123",
        "private_ip": "10.0.0.7",
        "dns_name": "x.boxes",
        "url": "http://10.0.0.7:8000",
        "last_processed_at": None,
        "recreates": 2,
        "last_error": last_error,
        "work": [],
    }
    assert [one["type"] for one in conditions] == ["Registered", "HeartbeatFresh"]
    assert conditions[1]["status"] == "true"


async def test_online_is_shown_only_while_the_current_box_heartbeats(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await _phase(platform, box.workspace_id, "online")
    assert (await box.record()).json()["phase"] == "online"

    await platform.age(box, timedelta(seconds=91))
    stale = await box.record()
    assert (stale.json()["phase"], _heartbeat_fresh(stale)) == ("degraded", "false")

    await box.heartbeat()
    assert (await box.record()).json()["phase"] == "online"

    new = await (await platform.replaced(box)).enter()
    unheard = await new.record()
    assert (unheard.json()["phase"], _heartbeat_fresh(unheard)) == ("degraded", "unknown")
    assert unheard.json()["last_heartbeat_at"] is None


async def test_a_box_of_whatever_generation_learns_where_it_stands(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await _phase(platform, old.workspace_id, "online")
    expected = {"workspace_id": old.workspace_id, "status": "online", "paused": False, "deleted": False}
    bare = replace(old, token=None)
    for answer in (await old.state(), await bare.state(secret=True), await bare.state(bearer=old.secret)):
        assert (answer.status_code, answer.json()) == (200, expected)

    await platform.replaced(old)
    for answer in (await old.state(), await bare.state(secret=True)):
        assert (answer.status_code, answer.json()) == (200, {**expected, "status": "superseded"})
    assert (await bare.state()).json()["code"] == "token_missing"


@pytest.mark.parametrize(
    ("intent", "status", "paused", "deleted"),
    [("stop", "stopping", True, False), ("delete", "deleting", False, True)],
)
async def test_a_box_learns_that_its_workspace_is_over_before_the_lifecycle_says_so(
    platform: Platform, intent: str, status: str, paused: bool, deleted: bool
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await _phase(platform, box.workspace_id, "online")
    await platform.intend(box, intent)
    answer = await box.state()
    assert answer.json() == {
        "workspace_id": box.workspace_id,
        "status": status,
        "paused": paused,
        "deleted": deleted,
    }
    assert (await box.record(bearer=OPERATOR_TOKEN)).json()["phase"] == status


async def test_the_api_is_ready_once_the_database_has_the_schema(postgres: Postgres) -> None:
    url = empty_database(postgres, "not_migrated")
    async with platform_on(url) as platform:
        assert (await platform.client.get("/healthz")).json() == {"status": "ok"}
        answer = await platform.client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "0001_initial" in answer.json()["error"]
        await patiently_migrate(url)
        assert (await platform.client.get("/readyz")).json() == {"status": "ready"}


async def test_without_a_database_the_api_lives_is_not_ready_and_refuses(postgres: Postgres) -> None:
    url = empty_database(postgres, "dropped")
    await patiently_migrate(url)
    async with platform_on(url) as platform:
        box = await platform.workspace("ws-dropped")
        assert (await box.register(secret=True)).status_code == 200
        platform.shorten_checkout_timeout()
        await _drop(postgres, "dropped")
        for answer in (await box.register(secret=True), await box.heartbeat(), await box.state(secret=True)):
            assert (answer.status_code, answer.json()["code"]) == (503, "platform_unavailable")
            assert (answer.json()["action"], answer.headers["retry-after"]) == ("retry", "5")
        assert (await platform.client.get("/readyz")).status_code == 503
        assert (await platform.client.get("/healthz")).status_code == 200


async def _drop(postgres: Postgres, name: str) -> None:
    """Drop the database and end its sessions; the server waits only 5 s for them."""
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as admin:
        while True:
            with suppress(psycopg.errors.ObjectInUse):
                await admin.execute(drop)
                return
