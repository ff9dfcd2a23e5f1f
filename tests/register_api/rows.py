"""Shared by tests of decision tables: parsed responses, audit log rows, initial states."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import LiteralString

import httpx2
import psycopg
from psycopg import sql

from devstack.postgres import Postgres
from register_api.http.config import BootstrapPolicy
from tests.register_api.platform import CONFIG, Box, Platform, platform_on

PEER = "127.0.0.1"
"""The address of all test calls, set by `httpx2.ASGITransport`."""

ELSEWHERE = "10.0.0.7"
LATER = timedelta(seconds=61)
"""An active token that is unused for so long is quiet."""

LONG_OVER = timedelta(minutes=3)
"""A box that still calls so long after it was superseded was not terminated: it is reported."""

UNKNOWN_TOKEN = "x" * 43
"""As long as a token, but not one."""

FULL: Mapping[str, object] = {
    "error_rate": 0.0, "sample_error": "", "active_tasks": 0, "current_task": "", "uptime_seconds": 0,
}  # fmt: skip
"""The members of a runtime's full heartbeat; tools send fewer."""


def refusal(answer: httpx2.Response) -> tuple[int, str, str]:
    """Status, code and action of a refusal, which never carries a token."""
    body = answer.json()
    assert "auth_token" not in body
    assert body["retryable"] == (body["action"] == "retry") == (answer.status_code == 503), body
    return answer.status_code, body["code"], body["action"]


def token_of(answer: httpx2.Response) -> str | None:
    """The token in a successful register response."""
    body: dict[str, str] = answer.json()
    assert (answer.status_code, body["status"]) == (200, "registered"), body
    assert body.keys() <= {"status", "auth_token"}
    return body.get("auth_token")


async def boxes_by_what_is_live(platform: Platform, address: str | None = None) -> dict[str, Box]:
    """Boxes without a token, by the live tokens of their generations; with a recorded address if given."""
    boxes = {live: await platform.workspace() for live in ("none", "pending", "active")}
    for box in boxes.values():
        await locate(platform, box, address)
    await boxes["pending"].enter()
    await boxes["active"].enter_and_use()
    return boxes


async def audit_entries(platform: Platform, box: Box) -> list[tuple[str, str, str, bool]]:
    """Credential kind, identity, code and alert of the workspace's audit log rows, oldest first."""
    query: LiteralString = (
        "SELECT credential_kind, identity, code, needs_attention FROM audit_log"
        " WHERE workspace_id = %s ORDER BY audit_id"
    )
    return [
        (row["credential_kind"], row["identity"], row["code"], row["needs_attention"])
        for row in await platform.rows(query, box)
    ]


async def decided(platform: Platform, box: Box) -> tuple[str, str, str, bool]:
    """The newest audit log row."""
    return (await audit_entries(platform, box))[-1]


async def send_heartbeat(
    box: Box, members: Mapping[str, object], *, bearer: str | None = None, secret: bool = False
) -> httpx2.Response:
    """Send a heartbeat with exactly these members."""
    headers = box.headers(bearer=bearer, secret=secret)
    body = {"workspace_id": box.workspace_id, **members}
    return await box.client.post("/registry/heartbeat", json=body, headers=headers)


async def unauthenticated(platform: Platform, box: Box) -> tuple[int, bool]:
    """The number of unauthenticated heartbeats in a row, and whether the credentials count as lost."""
    query: LiteralString = (
        "SELECT unauthenticated_count, credential_lost_at FROM heartbeats WHERE workspace_id = %s"
    )
    [row] = await platform.rows(query, box)
    return row["unauthenticated_count"], row["credential_lost_at"] is not None


async def locate(platform: Platform, box: Box, address: str | None) -> None:
    """Record the address of the current generation's instance."""
    await platform.database.execute(
        "UPDATE generations SET private_ip = %s WHERE workspace_id = %s AND superseded_at IS NULL",
        [address, box.workspace_id],
    )


async def revoke(platform: Platform, box: Box) -> None:
    """Revoke all tokens of the workspace, as an operator would."""
    await platform.database.execute(
        "UPDATE tokens SET state = 'revoked', nonce = NULL, revoked_at = now() WHERE workspace_id = %s",
        [box.workspace_id],
    )


async def age_end(platform: Platform, box: Box) -> None:
    """Age the end of the workspace's superseded generations."""
    await platform.database.execute(
        "UPDATE generations SET superseded_at = superseded_at - %s WHERE workspace_id = %s",
        [LONG_OVER, box.workspace_id],
    )


def platform_under(policy: BootstrapPolicy, database: str) -> AbstractAsyncContextManager[Platform]:
    """The API under a bootstrap policy."""
    return platform_on(database, replace(CONFIG, bootstrap_policy=policy))


@asynccontextmanager
async def unavailable(postgres: Postgres, database: str) -> AsyncIterator[None]:
    """Make the database unavailable for the block and end all of its connections."""
    name = database.rpartition("/")[2]
    here, away = sql.Identifier(name), sql.Identifier(f"{name}_away")
    change, rename = (
        sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}"),
        sql.SQL("ALTER DATABASE {} RENAME TO {}"),
    )
    async with await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as admin:
        await admin.execute(change.format(here, sql.Literal(False)))
        while True:
            # Waits for the end of each session. A session that is just connecting appears a moment later,
            # so renaming is retried until no session is left.
            await admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name]
            )
            with suppress(psycopg.errors.ObjectInUse):
                await admin.execute(rename.format(here, away))
                break
        try:
            yield
        finally:
            await admin.execute(rename.format(away, here))
            await admin.execute(change.format(here, sql.Literal(True)))
