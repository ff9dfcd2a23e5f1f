"""Delegating to another workspace: who may, and that it is written once."""

import json
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from tests.register_api.delegation.delegating import (
    OPERATOR,
    api_token,
    bearer,
    code,
    delegate,
    delegated,
    made_by,
    row,
    wakeups,
    working,
)
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio

MEGABYTE = 1024 * 1024


async def post(source: Box, path: str, body: bytes) -> httpx2.Response:
    headers = {"content-type": "application/json", **source.headers()}
    return await source.client.post(path, content=body, headers=headers)


async def test_work_is_recorded_and_its_workflow_is_woken(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    answer = await delegate(source, target, task="count the sheep")
    assert answer.status_code == 202
    delegation_id = answer.json()["delegation_id"]
    assert answer.json() == {
        "delegation_id": delegation_id,
        "status": "delegated",
        "target_id": target.workspace_id,
    }
    written = await row(platform, delegation_id)
    assert (written["type"], written["state"], written["task"]) == ("delegate", "queued", "count the sheep")
    assert (written["source_id"], written["target_id"]) == (source.workspace_id, target.workspace_id)
    assert (written["attempts"], written["idempotent"], written["ended_at"]) == (0, False, None)
    assert await wakeups(platform, delegation_id) == 1


async def test_the_same_work_without_a_key_is_other_work(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    assert await delegated(source, target) != await delegated(source, target)


async def test_a_replayed_key_is_answered_the_same_and_written_once(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    first = await delegate(source, target, idempotency_key="report-7", idempotent=True)
    again = await delegate(source, target, idempotency_key="report-7", idempotent=True)
    assert (again.status_code, again.json()) == (first.status_code, first.json()) == (202, first.json())
    [written] = await made_by(platform, source)
    assert written["idempotent"] is True
    assert await wakeups(platform, written["delegation_id"]) == 1


async def test_a_key_that_stands_for_other_work_is_refused(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    other = await platform.workspace()
    await delegated(source, target, idempotency_key="report-7")
    for answer in (
        await delegate(source, target, idempotency_key="report-7", task="do something else"),
        await delegate(source, other, idempotency_key="report-7"),
    ):
        assert code(answer) == (409, "idempotency_key_reused")
    assert len(await made_by(platform, source)) == 1


async def test_keys_of_different_workspaces_do_not_meet(platform: Platform) -> None:
    one, two, target = await working(platform), await working(platform), await platform.workspace()
    assert await delegated(one, target, idempotency_key="1") != await delegated(
        two, target, idempotency_key="1", task="other work"
    )


async def test_a_key_still_stands_after_its_work_has_ended(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    first = await delegated(source, target, idempotency_key="k")
    await platform.database.execute(
        "UPDATE delegations SET state = 'processed', ended_at = now() WHERE delegation_id = %s", [first]
    )
    assert await delegated(source, target, idempotency_key="k") == first
    assert (await row(platform, first))["state"] == "processed"


async def test_the_own_box_a_tool_and_an_operator_may_delegate(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    for headers in (source.headers(), bearer(await api_token(source)), OPERATOR):
        assert (await delegate(source, target, headers=headers)).status_code == 202
    pending = await (await platform.workspace()).enter()
    assert (await delegate(pending, target)).status_code == 202


async def test_others_may_not_delegate_and_nothing_is_written(platform: Platform) -> None:
    source, target = await working(platform), await working(platform)
    theirs = await api_token(target)
    codes = {None: "token_missing", "x" * 43: "token_invalid", target.token: "token_invalid"}
    codes |= {theirs: "token_invalid", source.secret: "reregister_required"}
    for token, word in codes.items():
        assert code(await delegate(source, target, headers=bearer(token))) == (401, word)
        # only operators learn whether a workspace exists
        nowhere = replace(source, workspace_id="nowhere")
        assert (await delegate(nowhere, target, headers=bearer(token))).status_code == 401
    assert code(await delegate(replace(source, workspace_id="nowhere"), target, headers=OPERATOR)) == (
        404,
        "workspace_unknown",
    )
    assert await made_by(platform, source) == []


async def test_a_superseded_box_delegates_nothing(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    await platform.replaced(source)
    for headers in (source.headers(), bearer(source.secret)):
        assert code(await delegate(source, target, headers=headers)) == (410, "superseded")
    assert await made_by(platform, source) == []


async def test_the_target_has_to_exist_and_to_be_another(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    assert code(await delegate(source, "nowhere")) == (404, "target_unknown")
    assert code(await delegate(source, source)) == (400, "target_is_source")
    await platform.intend(target, "delete")
    assert code(await delegate(source, target)) == (409, "target_deleted")
    await platform.database.execute(
        "UPDATE workspaces SET intent = 'run', deleted_at = now() WHERE workspace_id = %s",
        [target.workspace_id],
    )
    assert code(await delegate(source, target)) == (409, "target_deleted")
    assert await made_by(platform, source) == []


async def test_a_stopped_target_gets_its_work_when_it_is_started(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    await platform.intend(target, "stop")
    assert (await delegate(source, target)).status_code == 202


async def test_a_stopped_source_has_no_box_that_delegates_but_people_do(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    tool = await api_token(source)
    await platform.intend(source, "stop")
    assert code(await delegate(source, target)) == (410, "workspace_stopped")
    assert await made_by(platform, source) == []
    for headers in (bearer(tool), OPERATOR):
        assert (await delegate(source, target, headers=headers)).status_code == 202


async def test_a_deleted_source_delegates_nothing(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    await platform.intend(source, "delete")
    await platform.database.execute(
        "UPDATE workspaces SET deleted_at = now() WHERE workspace_id = %s", [source.workspace_id]
    )
    assert code(await delegate(source, target)) == (410, "workspace_removed")
    assert code(await delegate(source, target, headers=OPERATOR)) == (404, "workspace_unknown")
    assert await made_by(platform, source) == []


@pytest.mark.parametrize("letter", ["x", "é", "字", "🐑"])
async def test_a_task_of_a_mebibyte_is_taken_and_one_byte_more_is_not(
    platform: Platform, letter: str
) -> None:
    source, target = await working(platform), await platform.workspace()
    count, rest = divmod(MEGABYTE, len(letter.encode()))
    task = letter * count + "x" * rest
    written = await row(platform, await delegated(source, target, task=task))
    assert written["task"] == task
    answer = await delegate(source, target, task=f"{task}x")
    assert code(answer) == (400, "body_invalid")
    assert answer.json()["error"] == f"task: must have at most {MEGABYTE} bytes"
    escaped = json.dumps({"target_id": target.workspace_id, "task": task}).encode()
    assert (await post(source, f"/workspaces/{source.workspace_id}/delegate", escaped)).status_code == 202, (
        "an ASCII client's escaped task fits into the body limit"
    )


async def test_a_body_over_four_mebibytes_is_not_read(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    body = json.dumps({"target_id": target.workspace_id, "task": "do it"}).encode()
    padded = body.ljust(4 * MEGABYTE)
    for path in ("delegate", "delegations/record"):
        padded = padded.replace(b'"task"', b'"delegation_id": "d-4m", "task"')[: 4 * MEGABYTE]
        full = await post(source, f"/workspaces/{source.workspace_id}/{path}", padded)
        assert full.status_code == 202, full.text
        more = await post(source, f"/workspaces/{source.workspace_id}/{path}", padded + b" ")
        assert code(more) == (413, "body_too_large")


async def test_all_other_paths_keep_their_small_bodies(platform: Platform) -> None:
    source = await working(platform)
    own = f"/workspaces/{source.workspace_id}"
    for path in (
        "/registry/register",
        "/registry/heartbeat",
        "/registry/update-card",
        f"{own}/tokens",
        f"{own}/delegations/some/update",
        f"{own}/delegations/record/update",
        f"{own}/delegate/",
        f"{own}/x/delegate",
        "/delegate",
    ):
        assert code(await post(source, path, b"{}".ljust(64 * 1024 + 1))) == (413, "body_too_large"), path
        assert (await post(source, path, b"{}".ljust(64 * 1024))).status_code != 413, path


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": ""},
        {"task": "a\0b"},
        {"task": 7},
        {"task": None},
        {"target_id": "Not An ID"},
        {"target_id": "ws\0"},
        {"idempotency_key": ""},
        {"idempotency_key": "k\0"},
        {"idempotency_key": "k" * 201},
        {"idempotent": "yes"},
    ],
)
async def test_what_the_call_does_not_take_is_named_and_not_written(
    platform: Platform, wrong: dict[str, Any]
) -> None:
    source, target = await working(platform), await platform.workspace()
    answer = await delegate(source, target, **wrong)
    assert code(answer) == (400, "body_invalid")
    assert answer.json()["error"].startswith(f"{next(iter(wrong))}: ")
    assert await made_by(platform, source) == []


async def test_half_a_surrogate_pair_is_no_text(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    for member in ("task", "idempotency_key", "target_id"):
        body = {"target_id": target.workspace_id, "task": "do it", member: "\ud83d"}
        answer = await post(source, f"/workspaces/{source.workspace_id}/delegate", json.dumps(body).encode())
        assert code(answer) == (400, "body_invalid")
    assert await made_by(platform, source) == []


async def test_a_key_may_have_any_other_letters(platform: Platform) -> None:
    source, target = await working(platform), await platform.workspace()
    for key in ("k" * 200, "schlüssel 🔑\n'; --", " "):
        first = await delegated(source, target, idempotency_key=key)
        assert await delegated(source, target, idempotency_key=key) == first
    assert len(await made_by(platform, source)) == 3
