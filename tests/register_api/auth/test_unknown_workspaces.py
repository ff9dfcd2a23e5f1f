"""A caller without a genuine credential cannot tell an unknown workspace from one that exists."""

from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.register_api.platform import Box, Platform
from tests.register_api.rows import UNKNOWN_TOKEN

pytestmark = pytest.mark.anyio

Headers = dict[str, str]

CALLS: dict[str, dict[str, Any]] = {
    "/registry/register": {"url": "http://10.0.0.7:8000", "agent_card": {"name": "Anna"}},
    "/registry/heartbeat": {"uptime_seconds": 42},
    "/registry/update-card": {"agent_card": {"name": "Anna"}},
}
NOWHERE = "ws-nowhere"


async def call(box: Box, path: str, headers: Headers) -> httpx2.Response:
    member = "id" if path == "/registry/register" else "workspace_id"
    return await box.client.post(path, json={member: box.workspace_id, **CALLS[path]}, headers=headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visible:
    """All that a caller sees of a response, except what it sent and the ID of the request."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def visible(answer: httpx2.Response, box: Box) -> Visible:
    body = answer.json()
    assert body.pop("workspace_id") == box.workspace_id
    assert body.pop("request_id") == answer.headers["x-request-id"]
    ours = {"x-request-id", "content-length"}
    # The length depends on the ID that the caller sent.
    length = int(answer.headers["content-length"]) - len(box.workspace_id)
    headers = {name: value for name, value in answer.headers.items() if name not in ours}
    return Visible(status=answer.status_code, body=body, headers={**headers, "content-length": str(length)})


async def bearers(platform: Platform) -> dict[str, Headers]:
    """Credentials that are none of the called workspaces'."""
    other = await (await platform.workspace()).enter_and_use()
    return {
        "none": {},
        "unknown": {"authorization": f"Bearer {UNKNOWN_TOKEN}"},
        "another box's token": other.headers(),
        "another box's secret": {"authorization": f"Bearer {other.secret}"},
        "another box's secret in its header": {"x-bootstrap-token": other.secret},
        "unreadable": {"authorization": "x"},
    }


@pytest.mark.parametrize("path", CALLS)
async def test_an_unproven_caller_gets_the_same_answer_for_workspaces_that_exist_and_that_do_not(
    platform: Platform, path: str
) -> None:
    running = await (await platform.workspace()).enter_and_use()
    fresh = await platform.workspace()
    stopped, deleted = await platform.workspace(), await platform.workspace()
    await platform.intend(stopped, "stop")
    await platform.intend(deleted, "delete")
    nowhere = Box(platform.client, NOWHERE, 1)
    for name, headers in (await bearers(platform)).items():
        unknown = visible(await call(nowhere, path, headers), nowhere)
        assert unknown.status == 401
        for box in (running, fresh, stopped, deleted):
            assert visible(await call(box, path, headers), box) == unknown, name


@pytest.mark.parametrize("path", CALLS)
async def test_the_holder_of_a_genuine_secret_learns_that_the_workspace_is_unknown(
    platform: Platform, path: str
) -> None:
    nowhere = Box(platform.client, NOWHERE, 1)
    for headers in (nowhere.headers(secret=True), nowhere.headers(bearer=nowhere.secret)):
        answer = await call(nowhere, path, headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "workspace_unknown")
    read = await nowhere.record(bearer=nowhere.secret)
    assert (read.status_code, read.json()["code"]) == (404, "workspace_unknown")
