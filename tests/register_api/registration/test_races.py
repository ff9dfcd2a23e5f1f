"""Concurrent calls: two boxes of a workspace at one bootstrap, sixteen calls of one box."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest

from store.db.pool import Connection
from store.registration.credentials import token_hash
from tests.register_api.platform import Box, Platform, retry_while_unavailable
from tests.register_api.serving import PATIENT, ApiProcess, api_process
from tests.register_api.stage import open_next

pytestmark = pytest.mark.anyio

T = TypeVar("T")

BOOTSTRAPS = 500
ROUNDS = 10
CALLS = 16

CALL_SECONDS = 100.0
"""A long timeout: on a slow machine no call or sender may be dropped."""

WAITS = replace(PATIENT, head_seconds=CALL_SECONDS, body_seconds=CALL_SECONDS)


@dataclass(frozen=True)
class Field:
    """The API behind a socket, its database, and a connection for opening generations."""

    platform: Platform
    url: str
    opener: Connection

    async def successor(self, box: Box) -> Box:
        """Open the next generation; its box without a token."""
        await open_next(self.opener, box.workspace_id, box.generation + 1)
        return replace(box, generation=box.generation + 1, token=None)

    async def live(self, box: Box) -> list[tuple[int, bytes]]:
        rows = await self.platform.rows(
            "SELECT generation, sha256 FROM tokens WHERE workspace_id = %s AND state <> 'revoked'", box
        )
        return [(row["generation"], row["sha256"]) for row in rows]

    async def register_and_hang_up(self, box: Box) -> None:
        """Send the whole call, and close without reading the response."""
        url, body = urlsplit(self.url), json.dumps({"id": box.workspace_id}).encode()
        _, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(
            b"POST /registry/register HTTP/1.1\r\nHost: platform\r\nContent-Type: application/json\r\n"
            b"X-Bootstrap-Token: %b\r\nContent-Length: %d\r\n\r\n%b" % (box.secret.encode(), len(body), body)
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture(scope="module")
def api(database: str) -> Iterator[ApiProcess]:
    """One process for all races."""
    with api_process(database, pool_size=CALLS, waits=WAITS) as running:
        yield running


@pytest.fixture
async def field(platform: Platform, api: ApiProcess, database: str) -> AsyncIterator[Field]:
    """The platform over sockets, with a connection for each call, as the script has."""
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with (
        httpx2.AsyncClient(
            base_url=api.url, timeout=CALL_SECONDS, trust_env=False, verify=False, limits=limits
        ) as client,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as opener,
    ):
        yield Field(replace(platform, client=client), api.url, opener)


async def together(*calls: Coroutine[object, object, T]) -> list[T]:
    """The results of calls that start at the same moment, the first one first."""
    barrier = asyncio.Barrier(len(calls))

    async def run(call: Coroutine[object, object, T]) -> T:
        await barrier.wait()
        return await call

    return await asyncio.gather(*map(run, calls))


def outcome(answer: httpx2.Response) -> tuple[int, str | None, str | None]:
    """Status, error code and token."""
    body = answer.json()
    return answer.status_code, body.get("code"), body.get("auth_token")


@pytest.mark.storm
async def test_of_two_boxes_at_one_bootstrap_the_current_one_wins_each_time(field: Field) -> None:
    old = await (await field.platform.workspace()).enter()
    before: str | None = None
    for number in range(BOOTSTRAPS):
        new = await field.successor(old)
        # Its own token file, the previous box's, or none; the new box may inherit it.
        held = (old.token, before, None)[number % 3]
        inherited = (None, old.token)[number % 4 == 0]
        calls = [
            replace(new, token=inherited).register(secret=True),
            replace(old, token=held).register(secret=True),
        ]
        first_is_new = number % 2 == 0
        answers = await together(*(calls if first_is_new else reversed(calls)))
        won, lost = map(outcome, answers if first_is_new else reversed(answers))
        assert (lost, won[0]) == ((410, "superseded", None), 200)
        assert won[2] is not None
        new = replace(new, token=won[2])
        alone = [(new.generation, token_hash(won[2]))]
        assert await field.live(new) == alone
        if number % 5 == 0:  # and with the new box's file, at the moment of its first use
            used, refused = await together(
                new.heartbeat(), replace(old, token=new.token).register(secret=True)
            )
            assert (used.status_code, outcome(refused)) == (200, (410, "superseded", None))
            assert await field.live(new) == alone
        before, old = old.token, new


async def test_sixteen_registers_of_one_box_get_one_token_though_half_of_the_answers_are_lost(
    field: Field,
) -> None:
    for _ in range(ROUNDS):
        box = await field.platform.workspace()
        lost = [field.register_and_hang_up(box) for _ in range(CALLS // 2)]
        answered = [retry_while_unavailable(partial(box.register, secret=True)) for _ in range(CALLS // 2)]
        both = [call for pair in zip(lost, answered, strict=True) for call in pair]
        answers = [outcome(one) for one in await together(*both) if one is not None]
        assert len(answers) == CALLS // 2
        [(status, _, token)] = set(answers)
        assert status == 200
        assert outcome(await retry_while_unavailable(partial(box.register, secret=True))) == (
            200,
            None,
            token,
        )
        assert await field.platform.tokens(box) == ["pending"]
