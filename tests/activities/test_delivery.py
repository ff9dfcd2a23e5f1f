"""Delivery to agents that are slow, vast or senseless: each is typed and bounded, and holds up no other."""

import asyncio
import itertools
import json
from dataclasses import dataclass
from datetime import timedelta

import pytest
from psycopg.rows import dict_row
from temporalio.testing import ActivityEnvironment

from activities import a2a, delivery, turns
from activities.a2a import Sender
from activities.delegation_ports import Advance, Advanced
from activities.delivery import Delivery, DeliveryConfig
from store import delegations, generations
from store.delegations import New
from store.pool import Pool
from tests.activities.agents import Agent, Behaviour, Caller, agent, done, head, message_of, obliging
from tests.store.ledger import open_next
from workflows.delegations import DelegationState, DelegationType

pytestmark = pytest.mark.anyio

QUEUED, DELIVERED, PROCESSED = DelegationState.QUEUED, DelegationState.DELIVERED, DelegationState.PROCESSED
MEGABYTE = 1024 * 1024
UNICODE = "größer als 1 € 😀 \u2028\u202e\ufeff\x01\x7f \"'\\ \r\n e\u0301 漢字 "
_NUMBERS = itertools.count(1)


def megabyte_of(text: str) -> str:
    """As much of it as a delegation may hold, to the byte."""
    whole = text * (MEGABYTE // len(text.encode()))
    return whole + "x" * (MEGABYTE - len(whole.encode()))


@dataclass(frozen=True, slots=True)
class Post:
    """One worker's delivery, and the ledger that it works on."""

    pool: Pool
    delivery: Delivery

    async def work(self, at: Agent, *, task: str = "do it", target: str | None = None) -> str:
        """A new delegation to that agent's box."""
        source, target = await self.box(None), target or await self.box(at)
        new = New(
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


def post_within(pool: Pool, seconds: float) -> Post:
    config = DeliveryConfig(allow_loopback=True, answer_within=timedelta(seconds=seconds))
    return Post(pool, Delivery(pool=pool, sender=Sender(), config=config))


@pytest.fixture
async def post(pool: Pool) -> Post:
    """Patient enough for a megabyte on a busy machine."""
    return post_within(pool, 30)


@pytest.fixture
async def hasty(pool: Pool) -> Post:
    """For agents that never come to an end."""
    return post_within(pool, 1)


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


async def test_of_an_answer_of_ten_megabytes_the_ledger_keeps_500_characters(post: Post) -> None:
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


async def test_an_answer_without_end_is_not_read_to_its_end_and_counts_as_delivered(post: Post) -> None:
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
        await asyncio.wait_for(box.left.wait(), 5)  # it was hung up on
    assert delivery.LONGEST_ANSWER <= sent + 65_536 < delivery.LONGEST_ANSWER + 16 * MEGABYTE, (
        "buffers hold some"
    )
    assert (await post.row(it))["response_preview"] is None


async def drip_body(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("200 OK", "content-length: 1000000"))
    await caller.drip()


async def drip_head(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\nx-slow: ")
    await caller.drip(b"x")


@pytest.mark.parametrize(
    ("behaviour", "state", "error"),
    [(drip_body, DELIVERED, None), (drip_head, QUEUED, "no answer within 1 s")],
)
async def test_who_drips_is_cut_off_and_work_for_others_is_done_meanwhile(
    hasty: Post, behaviour: Behaviour, state: DelegationState, error: str | None
) -> None:
    async with agent(behaviour) as slow, agent(obliging) as quick:
        dripping, other = await hasty.work(slow), await hasty.work(quick)
        cut_off = asyncio.create_task(hasty.advance(dripping))
        await slow.came.wait()
        assert (await hasty.advance(other)).state is PROCESSED
        assert not cut_off.done()
        advanced = await asyncio.wait_for(cut_off, 10)
        await asyncio.wait_for(slow.left.wait(), 5)
    assert (advanced.state, advanced.attempt) == (state, 1)
    assert (await hasty.row(dripping))["error"] == error


async def say_nothing(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.reader.read()


async def never_read(_: Agent, caller: Caller) -> None:
    await asyncio.Event().wait()


async def hang_up(_: Agent, caller: Caller) -> None:
    await caller.request()


async def say_garbage(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n")


async def say_too_little(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\ncontent-le")


async def headers_without_end(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(b"HTTP/1.1 200 OK\r\n")
    while True:
        await caller.say(b"x-more: and more\r\n" * 100)


async def interim_answers_without_end(_: Agent, caller: Caller) -> None:
    await caller.request()
    while True:
        await caller.say(head("103 Early Hints", "link: </style>"))
        await asyncio.sleep(0)  # the machine has others to serve


async def redirect_to_nowhere(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("307 Temporary Redirect", "location: http://[", "content-length: 0"))


async def empty_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.answer(b"")


async def senseless_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.answer(b"\x00\xff" * 500)


async def broken_chunks(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("200 OK", "transfer-encoding: chunked"), b"nonsense\r\n")


async def half_an_answer(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("200 OK", "content-length: 100"), b"half")


async def half_an_excuse(_: Agent, caller: Caller) -> None:
    await caller.request()
    await caller.say(head("503 Service Unavailable", "content-length: 100"), b"half")


NOT_HTTP = "the box's answer is not HTTP"


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (say_nothing, "no answer within 1 s"),
        (never_read, "no answer within 1 s"),
        (interim_answers_without_end, "no answer within 1 s"),
        (say_garbage, NOT_HTTP),
        (headers_without_end, NOT_HTTP),
        (redirect_to_nowhere, "the box answered with HTTP 307"),
    ],
)
async def test_who_took_it_and_gave_no_answer_has_had_one_of_five_attempts(
    hasty: Post, behaviour: Behaviour, error: str
) -> None:
    async with agent(behaviour) as box:
        it = await hasty.work(box, task=megabyte_of("work "))
        advanced = await hasty.advance(it)
    assert (advanced.over, advanced.state, advanced.attempt) == (False, QUEUED, 1)
    row = await hasty.row(it)
    assert (row["tries"], row["error_code"], row["error"]) == (0, "refused", error)
    assert box.callers == 1


@pytest.mark.parametrize("behaviour", [hang_up, say_too_little, half_an_excuse])
async def test_who_hangs_up_or_is_busy_was_not_reached(hasty: Post, behaviour: Behaviour) -> None:
    async with agent(behaviour) as box:
        it = await hasty.work(box)
        advanced = await hasty.advance(it)
    assert (advanced.over, advanced.state, advanced.attempt) == (False, QUEUED, 0)
    assert 0 < advanced.wait_seconds <= 1
    assert (await hasty.row(it))["tries"] == 1


@pytest.mark.parametrize("behaviour", [empty_answer, senseless_answer, broken_chunks, half_an_answer])
async def test_a_200_without_sense_is_a_delivery_and_no_more(hasty: Post, behaviour: Behaviour) -> None:
    async with agent(behaviour) as box:
        it = await hasty.work(box)
        assert (await hasty.advance(it)).state is DELIVERED
    row = await hasty.row(it)
    assert (row["attempt"], row["error"], row["response_preview"]) == (1, None, None)


async def test_large_answers_that_drip_do_not_keep_the_places_of_others(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(a2a, "LARGE_WITHIN", timedelta(seconds=1))
    all_large = asyncio.Barrier(5)

    async def large_and_slow(_: Agent, caller: Caller) -> None:
        await caller.request()
        await caller.say(head("200 OK", "content-length: 10000000"), b" " * 5 * MEGABYTE)
        await all_large.wait()
        await caller.drip()

    async def large(_: Agent, caller: Caller) -> None:
        await caller.request()
        await caller.answer(done("well done, " * MEGABYTE))

    async with agent(large_and_slow) as slow, agent(large) as well:
        dripping = [asyncio.create_task(post.advance(await post.work(slow))) for _ in range(4)]
        await all_large.wait()
        it = await post.work(well)
        # Before the thirty seconds of the slow are over, which are its own as well.
        assert (await asyncio.wait_for(post.advance(it), 15)).state is PROCESSED
        assert {(await one).state for one in dripping} == {DELIVERED}


async def test_of_a_crowd_at_a_silent_box_most_come_again_and_keep_nobody_else_waiting(post: Post) -> None:
    spoken = asyncio.Event()

    async def thoughtful(_: Agent, caller: Caller) -> None:
        await caller.request()
        await spoken.wait()
        await caller.answer(done("done"))

    async with agent(thoughtful) as slow, agent(obliging) as quick:
        target = await post.box(slow)
        crowd = [await post.work(slow, target=target) for _ in range(turns.AT_ONCE + 5)]
        looks = [asyncio.create_task(post.advance(it)) for it in crowd]
        gone = [await one for one in itertools.islice(asyncio.as_completed(looks), 5)]
        assert {(it.over, it.state, it.attempt) for it in gone} == {(False, QUEUED, 0)}
        assert all(1 <= it.wait_seconds <= 30 for it in gone)
        assert (await post.advance(await post.work(quick))).state is PROCESSED
        spoken.set()
        states = [(await one).state for one in looks]
        assert sorted(states) == [PROCESSED] * turns.AT_ONCE + [QUEUED] * 5
        for it in crowd:
            assert (await post.advance(it)).state is PROCESSED
    assert slow.callers == len(crowd)


def test_a_crowd_looks_ever_less_often() -> None:
    ages = [timedelta(seconds=seconds) for seconds in (0, 1, 8, 60, 600, 20_000)]
    assert [turns.again_after(age).total_seconds() for age in ages] == [1, 1, 2, 15, 30, 30]
