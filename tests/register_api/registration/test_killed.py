"""The API loses its database at each statement of a call: all is written, or nothing.

The box recovers, following its bootstrap script (I4, I5).
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx2
import pytest

from devstack.console import eventually
from tests.register_api.http.database_proxy import Moment, Proxy
from tests.register_api.platform import Box, Platform
from tests.register_api.serving import PATIENT, ApiProcess, api_process

pytestmark = pytest.mark.anyio

WAITS = replace(PATIENT, lock=timedelta(seconds=5))
"""A shorter lock timeout, because one test exceeds it."""

LATER = timedelta(seconds=61)
"""The longest wait of a box that has to retry."""

TRIES = 3
"""A dead connection, a token in use, and a success."""

URL = "http://10.0.0.7:8000/a2a"
CARD = {"name": "agent", "skills": [{"id": "s"}]}
EARLIER_URL = "http://10.0.0.7:8000/earlier"
EARLIER_CARD = {"name": "agent of before"}

Prepare = Callable[[Platform], Awaitable[Box]]
Call = Callable[[Box], Awaitable[httpx2.Response]]


async def new(platform: Platform) -> Box:
    return await platform.workspace()


async def holding_a_pending_token(platform: Platform) -> Box:
    box = await platform.workspace()
    answer = await box.register(secret=True, url=EARLIER_URL, agent_card=EARLIER_CARD)
    return replace(box, token=answer.json()["auth_token"])


async def waiting_for_its_answer(platform: Platform) -> Box:
    return replace(await holding_a_pending_token(platform), token=None)


async def without_its_token(platform: Platform) -> Box:
    box = await holding_a_pending_token(platform)
    await box.heartbeat()
    await platform.age(box, LATER)
    return replace(box, token=None)


async def with_a_successor(platform: Platform) -> Box:
    """A box that lost its token and got a new one: the old one is retiring."""
    return await (await without_its_token(platform)).enter()


async def register(box: Box) -> httpx2.Response:
    return await box.register(secret=True, url=URL, agent_card=CARD)


async def register_with_token(box: Box) -> httpx2.Response:
    return await box.register(url=URL, agent_card=CARD)


async def heartbeat(box: Box) -> httpx2.Response:
    return await box.heartbeat()


async def update_card(box: Box) -> httpx2.Response:
    body = {"workspace_id": box.workspace_id, "agent_card": CARD}
    return await box.client.post("/registry/update-card", json=body, headers=box.headers())


@dataclass(frozen=True)
class Situation:
    """The preparation of the box, the call, and the states of its tokens before and after."""

    prepare: Prepare
    call: Call
    before: list[str]
    after: list[str]


RETIRING = (["retiring", "pending"], ["revoked", "active"])
SITUATIONS = {
    "first register": Situation(new, register, [], ["pending"]),
    "register again": Situation(waiting_for_its_answer, register, ["pending"], ["pending"]),
    "token lost": Situation(without_its_token, register, ["active"], ["retiring", "pending"]),
    "confirm": Situation(with_a_successor, register_with_token, *RETIRING),
    "confirm by a heartbeat": Situation(with_a_successor, heartbeat, *RETIRING),
}
BY_A_CARD = {"confirm by a card": Situation(with_a_successor, update_card, *RETIRING)}


@dataclass(frozen=True)
class Stand:
    """The API as a process behind the proxy, and its database reached directly."""

    platform: Platform
    proxy: Proxy
    process: ApiProcess
    client: httpx2.AsyncClient

    async def cut(self) -> None:
        self.proxy.cut()

    async def open_transactions(self) -> int:
        """Open transactions of the API: a cut connection holds its locks until its rollback."""
        cursor = await self.platform.database.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'onebox-api' AND xact_start IS NOT NULL"
        )
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def box(self, situation: Situation) -> Box:
        """A box in the situation, which calls the process."""
        return replace(await situation.prepare(self.platform), client=self.client)

    async def written(self, box: Box) -> dict[str, object]:
        """All that a call can write, without times and IDs."""
        [generation] = await self.platform.rows(
            "SELECT url, agent_card, registered_at IS NOT NULL AS registered FROM generations"
            " WHERE workspace_id = %s",
            box,
        )
        [heartbeats] = await self.platform.rows(
            "SELECT last_heartbeat_at FROM heartbeats WHERE workspace_id = %s", box
        )
        audit = await self.platform.rows(
            "SELECT operation, code FROM audit_log WHERE workspace_id = %s ORDER BY audit_id", box
        )
        return {
            "tokens": await self.platform.tokens(box),
            "url": generation["url"],
            "card": generation["agent_card"],
            "registered": generation["registered"],
            "heartbeat_seen": heartbeats["last_heartbeat_at"] is not None,
            "events": await self.platform.events(box),
            "audit": audit,
        }

    async def prepare(self) -> None:
        """Prepare a single heartbeat's statement on the new connection, so that it is not counted later."""
        await self.comes_back(await self.box(SITUATIONS["first register"]))

    async def comes_back(self, box: Box) -> Box:
        """Follow the bootstrap script until the box has a token; time passes while it waits."""
        answer = httpx2.Response(503)
        for _ in range(TRIES):
            answer = await box.register(bearer=box.token or box.secret, secret=True)
            if answer.status_code != 503:
                break
            await self.platform.age(box, LATER)
        assert answer.status_code == 200, answer.text
        box = replace(box, token=answer.json().get("auth_token", box.token))
        assert (await box.heartbeat()).status_code == 200
        *earlier, newest = await self.platform.tokens(box)
        assert newest == "active"
        assert set(earlier) <= {"revoked"}
        return box


@pytest.fixture
def pool_size() -> int:
    """One connection, which carries all statements of a call; a cut replaces it."""
    return 1


@pytest.fixture
async def stand(database: str, platform: Platform, pool_size: int) -> AsyncIterator[Stand]:
    # Like the bootstrap script, which opens a connection for each call.
    limits = httpx2.Limits(max_keepalive_connections=0)
    async with Proxy(database).running() as proxy:
        with api_process(proxy.url, pool_size=pool_size, waits=WAITS) as process:
            async with httpx2.AsyncClient(
                base_url=process.url, timeout=60, trust_env=False, limits=limits
            ) as client:
                yield Stand(platform, proxy, process, client)


@pytest.mark.parametrize("name", [*SITUATIONS, *BY_A_CARD])
async def test_a_database_lost_at_any_statement_is_a_503_and_the_box_comes_back(
    stand: Stand, name: str
) -> None:
    situation = (SITUATIONS | BY_A_CARD)[name]
    course = await _unbroken(stand, situation)
    # To the API, losing the statement or its result is the same; to the record, only the last one differs.
    moments = [(number, Moment.BEFORE) for number in range(1, course.count + 1)]
    for number, moment in [*moments, (course.count, Moment.AFTER)]:
        stand.proxy.cut()
        await stand.prepare()
        box = await stand.box(situation)
        stand.proxy.set_trap(number, moment, stand.cut)
        answer = await situation.call(box)
        assert (answer.status_code, answer.json()["code"]) == (503, "platform_unavailable")
        await _check(stand, box, course, number, moment)


@dataclass(frozen=True)
class Course:
    """A call without a fault."""

    count: int
    """The number of its statements."""
    before: Mapping[str, object]
    after: Mapping[str, object]


async def _unbroken(stand: Stand, situation: Situation) -> Course:
    await stand.prepare()
    box = await stand.box(situation)
    before = await stand.written(box)
    stand.proxy.count()
    answer = await situation.call(box)
    assert answer.status_code == 200, answer.text
    count = len(stand.proxy.statements)
    after = await stand.written(box)
    assert (before["tokens"], after["tokens"]) == (situation.before, situation.after)
    return Course(count, before, after)


async def _check(stand: Stand, box: Box, course: Course, number: int, moment: Moment) -> None:
    where = f"{moment} statement {number} of {course.count}: {stand.proxy.statements[-1]}"
    assert stand.proxy.sprung, where
    await eventually(stand.open_transactions, lambda count: count == 0, seconds=60)
    is_last = number == course.count
    expected = course.after if is_last and moment is Moment.AFTER else course.before
    assert await stand.written(box) == expected, where

    box = await stand.comes_back(box)
    again = await stand.written(box)
    assert (again["url"], again["card"]) == (expected["url"], expected["card"]), where
    if is_last:
        # It must also recover without its disk, and with another API process.
        box = replace(box, token=None, client=stand.platform.client)
        box = await stand.comes_back(box)
        assert (await register_with_token(box)).status_code == 200
        again = await stand.written(box)
        assert (again["url"], again["card"]) == (URL, CARD), where


@pytest.mark.parametrize("pool_size", [2])
async def test_a_call_that_stands_still_at_any_statement_and_another_of_the_same_box_get_one_token(
    stand: Stand,
) -> None:
    for number in itertools.count(1):
        box = await stand.box(SITUATIONS["first register"])
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def stand_still(reached: asyncio.Event = reached, go_on: asyncio.Event = go_on) -> None:
            reached.set()
            await go_on.wait()

        stand.proxy.set_trap(number, Moment.BEFORE, stand_still)
        first = asyncio.create_task(register(box))
        await asyncio.wait_for(reached.wait(), 60)
        where = f"before statement {number}: {stand.proxy.statements[-1]}"
        second = await register(box)
        go_on.set()
        answer = await first

        assert answer.status_code == 200, where
        assert await stand.platform.tokens(box) == ["pending"], where
        if second.status_code == 503:
            # From here on the first call holds the generation's row, and the second times out.
            assert second.json()["code"] == "platform_unavailable", where
            assert number > 1
            break
        assert second.status_code == 200, where
        assert second.json()["auth_token"] == answer.json()["auth_token"], where
