"""Helpers that call the delegation endpoints and read the ledger."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, LiteralString

import httpx2
from psycopg.rows import DictRow

from tests.register_api.platform import OPERATOR_TOKEN, Box, Platform


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


OPERATOR = bearer(OPERATOR_TOKEN)

STATUSES = {
    "queued": "queued",
    "delivered": "dispatched",
    "acked": "in_progress",
    "in_progress": "in_progress",
    "processed": "completed",
    "failed": "failed",
    "expired": "failed",
    "canceled": "failed",
}
"""The status that old clients read for each state."""

ENDS = ("processed", "failed", "expired", "canceled")


async def working(platform: Platform) -> Box:
    """A registered box that has used its token."""
    return await (await platform.workspace()).enter_and_use()


async def api_token(box: Box) -> str:
    answer = await box.client.post(f"/workspaces/{box.workspace_id}/tokens", headers=OPERATOR)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["auth_token"])


async def at_address(platform: Platform, box: Box, address: str = "127.0.0.1") -> None:
    """Record the current box's address; all calls of these tests come from 127.0.0.1."""
    await platform.database.execute(
        "UPDATE generations SET private_ip = %s WHERE workspace_id = %s AND superseded_at IS NULL",
        [address, box.workspace_id],
    )


async def delegate(
    source: Box, target: Box | str, *, headers: Mapping[str, str] | None = None, **body: Any
) -> httpx2.Response:
    target_id = target if isinstance(target, str) else target.workspace_id
    return await source.client.post(
        f"/workspaces/{source.workspace_id}/delegate",
        json={"target_id": target_id, "task": "do it", **body},
        headers=source.headers() if headers is None else headers,
    )


async def retry_while_503(call: Callable[[], Awaitable[httpx2.Response]]) -> httpx2.Response:
    """Retry while the response is a 503."""
    while (answer := await call()).status_code == 503:
        assert answer.json()["retryable"]
    return answer


async def delegated(source: Box, target: Box, **body: Any) -> str:
    """The ID of a new delegation."""
    answer = await delegate(source, target, **body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["delegation_id"])


async def record(
    source: Box,
    target: Box | str,
    delegation_id: str,
    *,
    headers: Mapping[str, str] | None = None,
    **body: Any,
) -> httpx2.Response:
    target_id = target if isinstance(target, str) else target.workspace_id
    return await source.client.post(
        f"/workspaces/{source.workspace_id}/delegations/record",
        json={"target_id": target_id, "task": "do it", "delegation_id": delegation_id, **body},
        headers=source.headers() if headers is None else headers,
    )


async def update(
    box: Box, delegation_id: str, status: str, *, headers: Mapping[str, str] | None = None, **body: Any
) -> httpx2.Response:
    return await box.client.post(
        f"/workspaces/{box.workspace_id}/delegations/{delegation_id}/update",
        json={"status": status, **body},
        headers=box.headers() if headers is None else headers,
    )


async def said(box: Box, delegation_id: str, status: str, **body: Any) -> str:
    """Send an update that is accepted; the status in its response."""
    answer = await update(box, delegation_id, status, **body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"status": answer.json()["status"], "delegation_id": delegation_id}
    return str(answer.json()["status"])


async def become(platform: Platform, delegation_id: str, state: str, **details: str) -> None:
    await platform.database.execute(
        "UPDATE delegations SET state = %(state)s, error = %(error)s, response_preview = %(preview)s,"
        " ended_at = CASE WHEN %(state)s = ANY(%(ends)s) THEN now() END WHERE delegation_id = %(id)s",
        {
            "id": delegation_id,
            "state": state,
            "ends": list(ENDS),
            "error": details.get("error"),
            "preview": details.get("response_preview"),
        },
    )


async def listed(box: Box, *, headers: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    answer = await box.client.get(
        f"/workspaces/{box.workspace_id}/delegations", headers=box.headers() if headers is None else headers
    )
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert isinstance(shown, list)
    return shown


async def row(platform: Platform, delegation_id: str) -> DictRow:
    [found] = await rows(platform, "SELECT * FROM delegations WHERE delegation_id = %s", delegation_id)
    return found


async def rows(platform: Platform, query: LiteralString, *parameters: object) -> list[DictRow]:
    return await (await platform.database.execute(query, parameters)).fetchall()


async def made_by(platform: Platform, source: Box) -> list[DictRow]:
    """All of the source's rows in the ledger."""
    return await rows(platform, "SELECT * FROM delegations WHERE source_id = %s", source.workspace_id)


async def wakeups(platform: Platform, delegation_id: str) -> int:
    """How often the delegation's workflow was woken."""
    query: LiteralString = "SELECT count(*) AS n FROM delegation_outbox WHERE delegation_id = %s"
    return int((await rows(platform, query, delegation_id))[0]["n"])


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]
