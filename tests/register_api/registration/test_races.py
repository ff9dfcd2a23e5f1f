"""Calls that meet: two boxes at one bootstrap, one box sixteen times, a generation that ends meanwhile."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest

from store.db.pool import Connection
from store.registration.credentials import token_hash
from tests.register_api.platform import Box, Platform, insisting
from tests.register_api.serving import PATIENT, ApiProcess, api_process
from tests.register_api.stage import open_next

pytestmark = pytest.mark.anyio

T = TypeVar("T")

BOOTSTRAPS = 500
OPENINGS = 50
ROUNDS = 10
CALLS = 16

CALL_SECONDS = 100.0
"""However slow the machine is: a call is not to be given up, nor its sender."""

WAITS = replace(PATIENT, head_seconds=CALL_SECONDS, body_seconds=CALL_SECONDS)


@dataclass(frozen=True)
class Field:
    """The API behind a socket, its database, and a connection that generations are opened on."""

    platform: Platform
    url: str
    opener: Connection

    async def successor(self, box: Box) -> Box:
        """Open the next generation; its box, which holds nothing."""
        await open_next(self.opener, box.workspace_id, box.generation + 1)
        return replace(box, generation=box.generation + 1, token=None)

    async def live(self, box: Box) -> list[tuple[int, bytes]]:
        rows = await self.platform.rows(
            "SELECT generation, sha256 FROM tokens WHERE workspace_id = %s AND state <> 'revoked'", box
        )
        return [(row["generation"], row["sha256"]) for row in rows]

    async def revoke(self, box: Box) -> None:
        await self.platform.database.execute(
            "UPDATE tokens SET state = 'revoked', nonce = NULL, revoked_at = now() WHERE workspace_id = %s",
            [box.workspace_id],
        )

    async def register_and_hang_up(self, box: Box) -> None:
        """The call is sent whole, and its answer is not waited for."""
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
    """The platform, called over sockets: a connection for each call, as the script has."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(
            base_url=api.url, timeout=CALL_SECONDS, trust_env=False, verify=False, limits=limits
        ) as client,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as opener,
    ):
        yield Field(replace(platform, client=client), api.url, opener)


async def together(*calls: Coroutine[object, object, T]) -> list[T]:
    """What the calls return, which are released at one moment, the first one first."""
    barrier = asyncio.Barrier(len(calls))

    async def run(call: Coroutine[object, object, T]) -> T:
        await barrier.wait()
        return await call

    return await asyncio.gather(*map(run, calls))


def told(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    """Status, error code and token."""
    body = answer.json()
    return answer.status_code, body.get("code"), body.get("auth_token")


@pytest.mark.storm
async def test_of_two_boxes_at_one_bootstrap_the_current_one_wins_each_time(field: Field) -> None:
    old = await (await field.platform.workspace()).enter()
    before: str | None = None
    for number in range(BOOTSTRAPS):
        new = await field.successor(old)
        # Its own token file, one that it copied from the box before it, or none; the new one inherits it.
        held = (old.token, before, None)[number % 3]
        inherited = (None, old.token)[number % 4 == 0]
        calls = [
            replace(new, token=inherited).register(secret=True),
            replace(old, token=held).register(secret=True),
        ]
        first_is_new = number % 2 == 0
        answers = await together(*(calls if first_is_new else reversed(calls)))
        won, lost = map(told, answers if first_is_new else reversed(answers))
        assert (lost, won[0]) == ((410, "superseded", None), 200)
        assert won[2] is not None
        new = replace(new, token=won[2])
        alone = [(new.generation, token_hash(won[2]))]
        assert await field.live(new) == alone
        if number % 5 == 0:  # and with the new box's file, at the moment of its first use
            used, refused = await together(new.beat(), replace(old, token=new.token).register(secret=True))
            assert (used.status_code, told(refused)) == (200, (410, "superseded", None))
            assert await field.live(new) == alone
        before, old = old.token, new


async def test_sixteen_registers_of_one_box_get_one_token_though_half_of_the_answers_are_lost(
    field: Field,
) -> None:
    for _ in range(ROUNDS):
        box = await field.platform.workspace()
        lost = [field.register_and_hang_up(box) for _ in range(CALLS // 2)]
        heard = [insisting(partial(box.register, secret=True)) for _ in range(CALLS // 2)]
        both = [call for pair in zip(lost, heard, strict=True) for call in pair]
        answers = [told(one) for one in await together(*both) if one is not None]
        assert len(answers) == CALLS // 2
        [(status, _, token)] = set(answers)
        assert status == 200
        assert told(await insisting(partial(box.register, secret=True))) == (200, None, token)
        assert await field.platform.tokens(box) == ["pending"]


async def test_sixteen_registers_after_the_live_token_was_revoked_get_one_token(field: Field) -> None:
    for _ in range(ROUNDS):
        box = await (await field.platform.workspace()).enter_and_use()
        await field.revoke(box)
        registers = (insisting(partial(box.register, secret=True)) for _ in range(CALLS))
        [(status, _, token)] = set(map(told, await together(*registers)))
        assert status == 200
        assert token not in (None, box.token)
        assert await field.platform.tokens(box) == ["revoked", "pending"]


async def test_sixteen_registers_while_the_live_token_is_revoked_get_one_token(field: Field) -> None:
    for number in range(ROUNDS):
        box = replace(await (await field.platform.workspace()).enter_and_use(), token=None)
        calls: list[Coroutine[object, object, httpx.Response | None]] = [
            insisting(partial(box.register, secret=True)) for _ in range(CALLS)
        ]
        calls.insert(number * CALLS // ROUNDS, field.revoke(box))
        answers = {told(answer) for answer in await together(*calls) if answer is not None}
        last = told(await insisting(partial(box.register, secret=True)))
        assert last[0] == 200
        assert answers <= {(503, "token_in_use", None), last}
        assert await field.platform.tokens(box) == ["revoked", "pending"]


async def test_a_generation_that_ends_while_its_box_calls_leaves_no_token_behind(field: Field) -> None:
    old = await field.platform.workspace()
    for number in range(OPENINGS):
        if number % 3:  # else it holds nothing yet
            old = await (old.enter() if number % 3 == 1 else old.enter_and_use())
        fresh = replace(old, token=None)
        calls: list[Coroutine[object, object, Box | httpx.Response]] = [
            *(insisting(partial(fresh.register, secret=True)) for _ in range(CALLS // 2)),
            *(insisting(partial(old.register, secret=True)) for _ in range(CALLS // 2)),
            *(insisting(partial(old.beat, secret=True)) for _ in range(CALLS // 4)),
        ]
        calls.insert(number * len(calls) // OPENINGS, field.successor(old))
        results = await together(*calls)
        answers = {told(one)[:2] for one in results if isinstance(one, httpx.Response)}
        before_it_ended = {(200, None), (401, "reregister_required"), (503, "token_in_use")}
        assert answers <= {*before_it_ended, (410, "superseded")}
        assert await field.live(old) == []
        for again in (
            old.register(secret=True),
            old.beat(secret=True),
            replace(old, token=old.secret).beat(),
        ):
            assert told(await again)[:2] == (410, "superseded")
        [old] = [one for one in results if isinstance(one, Box)]
    assert (await old.enter_and_use()).token
