"""The API killed, or cut off from its database, at each statement of a call: all is written, or nothing.

Whichever it was, the box comes back by itself, by the rule of its bootstrap script (I4, I5).
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx
import pytest

from devstack.console import eventually
from tests.register_api.http.cutting import Moment, Proxy
from tests.register_api.platform import Box, Platform
from tests.register_api.serving import PATIENT, ApiProcess, api_process

pytestmark = pytest.mark.anyio

WAITS = replace(PATIENT, lock=timedelta(seconds=5))
"""For a lock not so long as else: there is a test in which it is not given."""

LATER = timedelta(seconds=61)
"""What a box waits for that is told to come again, at the most."""

TRIES = 3
"""A connection that proves dead, a token that is in use; the third succeeds."""

URL = "http://10.0.0.7:8000/a2a"
CARD = {"name": "agent", "skills": [{"id": "s"}]}
EARLIER_URL = "http://10.0.0.7:8000/earlier"
EARLIER_CARD = {"name": "agent of before"}

Prepare = Callable[[Platform], Awaitable[Box]]
Call = Callable[[Box], Awaitable[httpx.Response]]


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
    await box.beat()
    await platform.age(box, LATER)
    return replace(box, token=None)


async def with_a_successor(platform: Platform) -> Box:
    """A box that lost its token, and got a new one: the old one retires."""
    return await (await without_its_token(platform)).enter()


async def register(box: Box) -> httpx.Response:
    return await box.register(secret=True, url=URL, agent_card=CARD)


async def register_with_token(box: Box) -> httpx.Response:
    return await box.register(url=URL, agent_card=CARD)


async def beat(box: Box) -> httpx.Response:
    return await box.beat()


async def update_card(box: Box) -> httpx.Response:
    body = {"workspace_id": box.workspace_id, "agent_card": CARD}
    return await box.client.post("/registry/update-card", json=body, headers=box.headers())


@dataclass(frozen=True)
class Situation:
    """How the box comes to the call, the call, and what its tokens are before and after."""

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
    "confirm by a beat": Situation(with_a_successor, beat, *RETIRING),
}
BY_A_CARD = {"confirm by a card": Situation(with_a_successor, update_card, *RETIRING)}


@dataclass(frozen=True)
class Stand:
    """The API as a process, behind it the proxy, and the database seen past both."""

    platform: Platform
    proxy: Proxy
    process: ApiProcess
    client: httpx.AsyncClient

    async def kill(self) -> None:
        self.process.kill()
        self.proxy.cut()

    async def cut(self) -> None:
        self.proxy.cut()

    async def open_transactions(self) -> int:
        """Of the API's: one whose connection was cut holds its locks until it is undone, a moment later."""
        cursor = await self.platform.database.execute(
            "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'onebox-api' AND xact_start IS NOT NULL"
        )
        [row] = await cursor.fetchall()
        return int(row["n"])

    async def box(self, situation: Situation) -> Box:
        """A box in the situation, which from now on calls the process."""
        return replace(await situation.prepare(self.platform), client=self.client)

    async def written(self, box: Box) -> dict[str, object]:
        """All that a call can have written, but for times and IDs."""
        [generation] = await self.platform.rows(
            "SELECT url, agent_card, registered_at IS NOT NULL AS registered FROM generations"
            " WHERE workspace_id = %s",
            box,
        )
        [beats] = await self.platform.rows(
            "SELECT last_heartbeat_at FROM heartbeats WHERE workspace_id = %s", box
        )
        trail = await self.platform.rows(
            "SELECT operation, code FROM audit_log WHERE workspace_id = %s ORDER BY audit_id", box
        )
        return {
            "tokens": await self.platform.tokens(box),
            "url": generation["url"],
            "card": generation["agent_card"],
            "registered": generation["registered"],
            "beating": beats["last_heartbeat_at"] is not None,
            "facts": await self.platform.facts(box),
            "trail": trail,
        }

    async def prepare(self) -> None:
        """Let a new connection prepare what else would count as a statement: that of a beat that comes alone.

        The boxes of the situations are known when they come back, and have beaten before: their beats are
        taken in by another statement.
        """
        await self.comes_back(await self.box(SITUATIONS["first register"]))

    async def comes_back(self, box: Box) -> Box:
        """What the bootstrap script does until it has a token; time passes while it waits."""
        answer = httpx.Response(503)
        for _ in range(TRIES):
            answer = await box.register(bearer=box.token or box.secret, secret=True)
            if answer.status_code != 503:
                break
            await self.platform.age(box, LATER)
        assert answer.status_code == 200, answer.text
        box = replace(box, token=answer.json().get("auth_token", box.token))
        assert (await box.beat()).status_code == 200
        *earlier, newest = await self.platform.tokens(box)
        assert newest == "active"
        assert set(earlier) <= {"revoked"}
        return box


@pytest.fixture
def pool_size() -> int:
    """One connection: each call's statements come on it, and after a cut it is a new one."""
    return 1


@pytest.fixture
async def stand(database: str, platform: Platform, pool_size: int) -> AsyncIterator[Stand]:
    # Like the bootstrap script, which connects anew for each call.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with Proxy(database).running() as proxy:
        with api_process(proxy.url, pool_size=pool_size, waits=WAITS) as process:
            async with httpx.AsyncClient(
                base_url=process.url, timeout=60, trust_env=False, limits=limits
            ) as client:
                yield Stand(platform, proxy, process, client)


@pytest.mark.storm
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("name", SITUATIONS)
async def test_a_kill_at_any_statement_leaves_all_or_nothing_and_the_box_comes_back(
    stand: Stand, name: str, moment: Moment
) -> None:
    situation = SITUATIONS[name]
    course = await _unbroken(stand, situation)
    for number in range(1, course.count + 1):
        box = await stand.box(situation)
        stand.proxy.set_trap(number, moment, stand.kill)
        with pytest.raises(httpx.TransportError):
            await situation.call(box)
        stand.process.start()
        await _check(stand, box, course, number, moment)


@pytest.mark.parametrize("name", [*SITUATIONS, *BY_A_CARD])
async def test_a_database_lost_at_any_statement_is_a_503_and_the_box_comes_back(
    stand: Stand, name: str
) -> None:
    situation = (SITUATIONS | BY_A_CARD)[name]
    course = await _unbroken(stand, situation)
    # Whether the statement is lost or its answer is the same to the API; to the record, but for the last one.
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
    """What a call does if nothing breaks it."""

    count: int
    """Of its statements."""
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
        # From either end it must also come back without its disk, and to another process of the API.
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
            # From here on the first holds the generation's row, and the second waits for it in vain.
            assert second.json()["code"] == "platform_unavailable", where
            assert number > 1
            break
        assert second.status_code == 200, where
        assert second.json()["auth_token"] == answer.json()["auth_token"], where
