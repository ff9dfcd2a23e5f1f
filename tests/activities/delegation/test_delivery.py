"""Delivery to agents that are slow, vast or senseless: each is typed and bounded, and holds up no other."""

import asyncio
import itertools
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import httpx2
import pytest
from psycopg.rows import dict_row
from temporalio.testing import ActivityEnvironment
from typing_extensions import override

from activities.delegation import a2a, delivery, per_target_limiter
from activities.delegation.a2a import A2aClient, Response, ResponseLimits
from activities.delegation.delivery import Delivery, DeliveryConfig
from devstack.console import eventually
from store.db.pool import Pool
from store.delegation import delegations
from store.delegation.delegations import NewDelegation
from store.workspace import generations
from tests.activities.delegation.agents import (
    Agent,
    Behaviour,
    Caller,
    agent,
    done,
    head,
    message_of,
    obliging,
)
from tests.activities.delegation.misbehaving import (
    broken_chunks,
    drip_body,
    drip_head,
    empty_answer,
    half_an_answer,
    half_an_excuse,
    hang_up,
    headers_without_end,
    interim_answers_without_end,
    never_read,
    redirect_to_nowhere,
    say_garbage,
    say_nothing,
    say_too_little,
    senseless_answer,
)
from tests.store.delegation.ledger import open_next
from workflows.delegation.contract import Advance, Advanced
from workflows.delegation.rules import INITIAL_BACKOFF, DelegationState, DelegationType, backoff

pytestmark = pytest.mark.anyio

QUEUED, DELIVERED, PROCESSED = DelegationState.QUEUED, DelegationState.DELIVERED, DelegationState.PROCESSED
MEGABYTE = 1024 * 1024
UNICODE = "größer als 1 € 😀 \u2028\u202e\ufeff\x01\x7f \"'\\ \r\n e\u0301 漢字 "
_NUMBERS = itertools.count(1)


def megabyte_of(text: str) -> str:
    """As much of it as a delegation may hold, to the byte."""
    whole = text * (MEGABYTE // len(text.encode()))
    return whole + "x" * (MEGABYTE - len(whole.encode()))


WITHIN = timedelta(seconds=30)
"""Enough for a megabyte on a busy machine. Tests skip it: they advance the clock of the event loop."""

UNHURRIED = 60
"""So much longer than in production is the pause between two tries: none overtakes a test."""


class HeedfulSender(A2aClient):
    """Signals when the head of a response was read, and when no slot for large responses is left."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._large.locked()

    @override
    async def _read(
        self,
        response: httpx2.Response,
        bounds: ResponseLimits,
        deadline: asyncio.Timeout,
        place: AsyncExitStack,
    ) -> Response:
        self.heads.set()
        return await super()._read(response, bounds, deadline, place)


@dataclass(frozen=True, slots=True)
class Post:
    """One worker's delivery, and the ledger that it works on."""

    pool: Pool
    delivery: Delivery
    sender: "HeedfulSender"

    async def work(self, at: Agent, *, task: str = "do it", target: str | None = None) -> str:
        """A new delegation to that agent's box."""
        source, target = await self.box(None), target or await self.box(at)
        new = NewDelegation(
            delegation_id=f"delivered-{next(_NUMBERS)}",
            type=DelegationType.DELEGATE,
            source_id=source,
            target_id=target,
            task=task,
        )
        async with self.pool.connection() as conn:
            assert await delegations.create(conn, new) is None
        return new.delegation_id

    async def box(self, at: Agent | None) -> str:
        """A workspace whose box registered where the agent listens."""
        name = f"delivering-{next(_NUMBERS)}"
        async with self.pool.connection() as conn, conn.transaction():
            await generations.enroll(conn, name, spec={})
            await open_next(conn, name, 1)
            if at is not None:
                await conn.execute(
                    "UPDATE generations SET url = %s, private_ip = '127.0.0.1', registered_at = now()"
                    " WHERE workspace_id = %s",
                    [at.url, name],
                )
        return name

    async def advance(self, delegation_id: str) -> Advanced:
        """Run the activity once, as a worker would."""
        request = Advance(delegation_id=delegation_id)
        return await ActivityEnvironment().run(self.delivery.advance_delegation, request)

    async def row(self, delegation_id: str) -> dict[str, object]:
        async with self.pool.connection() as conn:
            cursor = conn.cursor(row_factory=dict_row)
            await cursor.execute("SELECT * FROM delegations WHERE delegation_id = %s", [delegation_id])
            [row] = await cursor.fetchall()
            return row


def post_within(pool: Pool, within: timedelta) -> Post:
    config = DeliveryConfig(allow_loopback=True, response_timeout=within)
    sender = HeedfulSender()
    return Post(pool, Delivery(pool=pool, sender=sender, config=config), sender)


@pytest.fixture
async def post(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Deliveries with long timeouts and long backoffs."""
    monkeypatch.setattr(delivery, "backoff", lambda tries: UNHURRIED * backoff(tries))
    return post_within(pool, WITHIN)


Leap = Callable[[timedelta], None]


@pytest.fixture
async def leap(monkeypatch: pytest.MonkeyPatch) -> Leap:
    """Advances the clock of this event loop by a given time.

    What is to happen before a deadline happens before it, then, however slow the machine is.
    """
    loop = asyncio.get_running_loop()
    clock, ahead = loop.time, timedelta()
    monkeypatch.setattr(loop, "time", lambda: clock() + ahead.total_seconds())

    def over(time: timedelta) -> None:
        nonlocal ahead
        ahead += time

    return over


async def test_a_megabyte_of_unicode_arrives_byte_for_byte_under_its_own_id(post: Post) -> None:
    task = megabyte_of(UNICODE)
    async with agent(obliging) as box:
        it = await post.work(box, task=task)
        assert (await post.advance(it)).state is PROCESSED
    [request] = box.asked
    message = message_of(request)
    [part] = message["parts"] if isinstance(message["parts"], list) else []
    assert part["text"].encode() == task.encode()
    assert message["messageId"] == it
    assert message["metadata"] == {"delegation_id": it, "attempt": 1, "generation": 1}


async def test_500_characters_of_a_response_of_ten_megabytes_are_stored(post: Post) -> None:
    answer = done("größer, " * (10 * MEGABYTE // len(json.dumps("größer, ")[1:-1])))

    async def verbose(_: Agent, caller: Caller) -> None:
        await caller.request()
        await caller.answer(answer)

    async with agent(verbose) as box:
        it = await post.work(box)
        advanced = await post.advance(it)
    assert (advanced.over, advanced.state) == (True, PROCESSED)
    row = await post.row(it)
    assert row["response_preview"] == ("größer, " * 100)[:500]
    assert len(str(row)) < 3000


async def test_an_endless_response_is_cut_off_and_counts_as_delivered(post: Post) -> None:
    sent = 0

    async def endless(_: Agent, caller: Caller) -> None:
        nonlocal sent
        await caller.request()
        await caller.say(head("200 OK", "content-length: 1000000000000"))
        while True:
            await caller.say(b" " * 65_536)
            sent += 65_536

    async with agent(endless) as box:
        it = await post.work(box)
        assert (await post.advance(it)).state is DELIVERED
        await asyncio.wait_for(box.left.wait(), 60)  # the client hung up
    assert delivery.MAX_RESPONSE_BYTES <= sent + 65_536 < delivery.MAX_RESPONSE_BYTES + 16 * MEGABYTE, (
        "buffers hold some"
    )
    assert (await post.row(it))["response_preview"] is None


@pytest.mark.parametrize(
    ("behaviour", "state", "error"),
    [(drip_body, DELIVERED, None), (drip_head, QUEUED, "no response within 30 s")],
)
async def test_a_slow_box_is_cut_off_and_does_not_block_others(
    post: Post, leap: Leap, behaviour: Behaviour, state: DelegationState, error: str | None
) -> None:
    async with agent(behaviour) as slow, agent(obliging) as quick:
        dripping = await post.work(slow)
        cut_off = asyncio.create_task(post.advance(dripping))
        await slow.stuck.wait()
        if behaviour is drip_body:
            await post.sender.heads.wait()
        other = await post.work(quick)
        assert (await post.advance(other)).state is PROCESSED
        assert not cut_off.done()
        leap(WITHIN)
        advanced = await asyncio.wait_for(cut_off, 60)
        await asyncio.wait_for(slow.left.wait(), 60)
    assert (advanced.state, advanced.attempt) == (state, 1)
    assert (await post.row(dripping))["error"] == error


NO_ANSWER = "no response within 30 s"
NOT_HTTP = "the response of the box is not HTTP"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (say_nothing, NO_ANSWER),
        (never_read, NO_ANSWER),
        (interim_answers_without_end, NO_ANSWER),
        (say_garbage, NOT_HTTP),
        (headers_without_end, NOT_HTTP),
        (redirect_to_nowhere, "the box answered with HTTP 307"),
    ],
)
async def test_a_delivery_without_a_response_counts_as_one_of_five_attempts(
    post: Post, leap: Leap, behaviour: Behaviour, error: str
) -> None:
    async with agent(behaviour) as box:
        it = await post.work(box, task=megabyte_of("work "))
        advance = asyncio.create_task(post.advance(it))
        if error == NO_ANSWER:
            await box.stuck.wait()
            leap(WITHIN)
        advanced = await asyncio.wait_for(advance, 60)
    assert (advanced.over, advanced.state, advanced.attempt) == (False, QUEUED, 1)
    row = await post.row(it)
    assert (row["connect_failures"], row["error_code"], row["error"]) == (0, "refused", error)
    assert box.callers == 1


@pytest.mark.parametrize("behaviour", [hang_up, say_too_little, half_an_excuse])
async def test_a_box_that_hangs_up_or_is_busy_was_not_reached(post: Post, behaviour: Behaviour) -> None:
    async with agent(behaviour) as box:
        it = await post.work(box)
        advanced = await post.advance(it)
    assert (advanced.over, advanced.state, advanced.attempt) == (False, QUEUED, 0)
    assert 0 < advanced.wait_seconds <= (UNHURRIED * INITIAL_BACKOFF).total_seconds()
    assert (await post.row(it))["connect_failures"] == 1


@pytest.mark.parametrize("behaviour", [empty_answer, senseless_answer, broken_chunks, half_an_answer])
async def test_an_unreadable_200_is_only_a_delivery(post: Post, behaviour: Behaviour) -> None:
    async with agent(behaviour) as box:
        it = await post.work(box)
        assert (await post.advance(it)).state is DELIVERED
    row = await post.row(it)
    assert (row["attempts"], row["error"], row["response_preview"]) == (1, None, None)


async def test_slow_large_responses_do_not_hold_their_slots(
    pool: Pool, leap: Leap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(a2a, "LARGE_RESPONSE_TIMEOUT", timedelta(minutes=2))
    post = post_within(pool, timedelta(minutes=30))

    async def large_and_slow(_: Agent, caller: Caller) -> None:
        await caller.request()
        await caller.say(head("200 OK", "content-length: 10000000"), b" " * 5 * MEGABYTE)
        await caller.drip()

    async def large(_: Agent, caller: Caller) -> None:
        await caller.request()
        await caller.answer(done("well done, " * MEGABYTE))

    async with agent(large_and_slow) as slow, agent(large) as well:
        dripping = [asyncio.create_task(post.advance(await post.work(slow))) for _ in range(4)]
        await eventually(lambda: asyncio.sleep(0, post.sender.is_full), bool, seconds=60)
        it = await post.work(well)
        leap(timedelta(minutes=2))
        # Long before the response timeout of half an hour.
        assert (await asyncio.wait_for(post.advance(it), 60)).state is PROCESSED
        assert {(await one).state for one in dripping} == {DELIVERED}


async def test_a_backlog_for_an_unresponsive_box_is_retried_and_does_not_block_others(post: Post) -> None:
    spoken = asyncio.Event()

    async def thoughtful(_: Agent, caller: Caller) -> None:
        await caller.request()
        await spoken.wait()
        await caller.answer(done("done"))

    async with agent(thoughtful) as slow, agent(obliging) as quick:
        target = await post.box(slow)
        backlog = [await post.work(slow, target=target) for _ in range(per_target_limiter.MAX_PER_TARGET + 5)]
        attempts = [asyncio.create_task(post.advance(it)) for it in backlog]
        deferred = [await one for one in itertools.islice(asyncio.as_completed(attempts), 5)]
        assert {(it.over, it.state, it.attempt) for it in deferred} == {(False, QUEUED, 0)}
        assert all(1 <= it.wait_seconds <= 30 for it in deferred)
        assert (await post.advance(await post.work(quick))).state is PROCESSED
        spoken.set()
        states = [(await one).state for one in attempts]
        assert sorted(states) == [PROCESSED] * per_target_limiter.MAX_PER_TARGET + [QUEUED] * 5
        for it in backlog:
            assert (await post.advance(it)).state is PROCESSED
    assert slow.callers == len(backlog)


def test_a_backlog_polls_ever_less_often() -> None:
    ages = [timedelta(seconds=seconds) for seconds in (0, 1, 8, 60, 600, 20_000)]
    assert [per_target_limiter.retry_after(age).total_seconds() for age in ages] == [1, 1, 2, 15, 30, 30]
