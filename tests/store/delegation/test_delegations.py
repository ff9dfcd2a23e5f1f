"""Races at the ledger: update against expiry, requeue and cancel; old boxes against new generations."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial

import psycopg
import pytest

from devstack.postgres import Postgres
from store.delegation import agent_liveness, delegations
from store.delegation.delegations import DelegationRecord, NewDelegation
from store.workspace import generations
from tests.database import migrated_database, patient_pool
from tests.store.delegation.ledger import Ledger, open_next
from workflows.delegation.rules import (
    TERMINAL,
    DelegationState,
    DelegationType,
    may_become,
)

pytestmark = pytest.mark.anyio

QUEUED, DELIVERED = DelegationState.QUEUED, DelegationState.DELIVERED
ACKED, IN_PROGRESS = DelegationState.ACKED, DelegationState.IN_PROGRESS
PROCESSED, FAILED = DelegationState.PROCESSED, DelegationState.FAILED
EXPIRED, CANCELED = DelegationState.EXPIRED, DelegationState.CANCELED
AGAIN = timedelta(seconds=1)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "delegations")


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    async with patient_pool(database, maximum=12) as pool:
        yield Ledger(pool)


@pytest.mark.parametrize("end", [EXPIRED, CANCELED, FAILED])
@pytest.mark.parametrize("first", ["the target", "the control plane"])
async def test_a_write_that_waits_for_an_ended_delegation_changes_nothing(
    ledger: Ledger, end: DelegationState, first: str
) -> None:
    it = await ledger.delegation(await ledger.workspace(), state=IN_PROGRESS)
    async with ledger.transaction() as conn:
        if first == "the target":
            assert await delegations.record_progress(conn, it, PROCESSED, generation=1, attempt=None)
            late = ledger.end(it, end)
        else:
            assert await delegations.end(conn, it, end, code="ended", error="it ended", attempt=1)
            late = ledger.report(it, PROCESSED)
        waiting = asyncio.ensure_future(late)
        await ledger.until_waiting()
        before = await (
            await conn.execute("SELECT d FROM delegations d WHERE delegation_id = %s", [it])
        ).fetchone()
    assert await waiting is False
    [after] = await ledger.rows("SELECT d FROM delegations d WHERE delegation_id = %s", it)
    assert before == (after["d"],)


@pytest.mark.parametrize("now", list(DelegationState))
async def test_the_database_moves_forward_only_as_the_rules_do(ledger: Ledger, now: DelegationState) -> None:
    target = await ledger.workspace()
    for then in DelegationState:
        it = await ledger.delegation(target, state=now)
        assert await ledger.report(it, then) == may_become(now, then)
        row = await ledger.row(it)
        assert row["state"] == (then if may_become(now, then) else now)
        assert (row["ended_at"] is not None) == (row["state"] in TERMINAL)


@pytest.mark.parametrize("end", sorted(TERMINAL))
async def test_the_database_itself_keeps_what_has_ended(ledger: Ledger, end: DelegationState) -> None:
    it = await ledger.delegation(await ledger.workspace(), state=end)
    other = PROCESSED if end is not PROCESSED else FAILED
    for change in (
        f"state = '{other}'",
        "state = 'queued', ended_at = NULL",
        "error = 'other'",
        "response_preview = 'other'",
        "ended_at = now() + interval '1 s'",
    ):
        with pytest.raises(psycopg.errors.RaiseException, match=f"{it} has ended as {end}"):
            await ledger.rows(f"UPDATE delegations SET {change} WHERE delegation_id = %s", it)
    await ledger.rows("UPDATE delegations SET times_listed = times_listed + 1 WHERE delegation_id = %s", it)


@pytest.mark.parametrize("state", [QUEUED, DELIVERED, ACKED, IN_PROGRESS])
async def test_a_report_that_waits_for_the_next_generation_has_no_effect(
    ledger: Ledger, state: DelegationState
) -> None:
    # A report that the rules exclude need not wait for a lock.
    for then in filter(partial(may_become, state), (DELIVERED, ACKED, PROCESSED, FAILED)):
        target = await ledger.workspace()
        it = await ledger.delegation(target, state=state)
        before = await ledger.row(it)
        async with ledger.transaction() as conn:
            await open_next(conn, target, 2)
            late = asyncio.ensure_future(ledger.report(it, then))
            await ledger.until_waiting()
        assert await late is False
        assert await ledger.row(it) == before
        # a report of the new box counts only for a queued delegation
        assert await ledger.report(it, then, generation=2) == (state is QUEUED)


async def test_a_report_that_came_first_delays_the_next_generation(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=ACKED)
    async with ledger.transaction() as conn:
        assert await delegations.record_progress(conn, it, PROCESSED, generation=1, attempt=None)
        opening = asyncio.ensure_future(ledger.opened(target, 2))
        await ledger.until_waiting()
        current = await conn.execute(
            "SELECT generation FROM generations WHERE superseded_at IS NULL AND workspace_id = %s", [target]
        )
        assert await current.fetchone() == (1,)
    await opening
    assert (await ledger.row(it))["state"] == PROCESSED


async def test_the_next_generation_wakes_open_delegations_to_it(ledger: Ledger) -> None:
    target = await ledger.workspace()
    under_way = {await ledger.delegation(target, state=state) for state in (QUEUED, DELIVERED, ACKED)}
    over = await ledger.delegation(target, state=PROCESSED)
    await ledger.rows("DELETE FROM delegation_outbox")
    await ledger.opened(target, 2)
    stirred = {
        row["delegation_id"] for row in await ledger.rows("SELECT delegation_id FROM delegation_outbox")
    }
    assert stirred == under_way
    assert over not in stirred


async def test_a_requeue_does_not_undo_the_next_delivery(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=DELIVERED)
    await ledger.opened(target, 2)
    async with ledger.transaction() as conn:
        assert await delegations.requeue(conn, it, generation=1, attempt=1)
        assert not await delegations.requeue(conn, it, generation=1, attempt=1)
        assert await delegations.record_progress(conn, it, DELIVERED, generation=2, attempt=1)
        # a write based on an earlier read
        assert not await delegations.requeue(conn, it, generation=1, attempt=1)
        assert not await delegations.requeue(conn, it, generation=2, attempt=1)
        assert not await delegations.requeue(conn, it, generation=1, attempt=2)
        assert not await delegations.end(conn, it, FAILED, code="target_replaced", error="", attempt=1)
    row = await ledger.row(it)
    assert (row["state"], row["attempts"], row["target_generation"]) == (DELIVERED, 2, 2)


async def test_one_attempt_is_recorded_once(ledger: Ledger) -> None:
    it = await ledger.delegation(await ledger.workspace())
    won = await asyncio.gather(*(ledger.report(it, DELIVERED, attempt=0) for _ in range(8)))
    assert won.count(True) == 1
    async with ledger.transaction() as conn:  # a write of another attempt comes too late
        await delegations.record_refusal(conn, it, attempt=0, code="refused", error="no", retry_after=AGAIN)
        await delegations.record_unreachable(conn, it, attempt=0, retry_after=AGAIN)
    row = await ledger.row(it)
    assert (row["state"], row["attempts"], row["connect_failures"], row["error"]) == (DELIVERED, 1, 0, None)


async def test_one_refusal_counts_once(ledger: Ledger) -> None:
    it = await ledger.delegation(await ledger.workspace())

    async def refused() -> None:
        async with ledger.transaction() as conn:
            await delegations.record_refusal(
                conn, it, attempt=0, code="refused", error="no", retry_after=AGAIN
            )

    await asyncio.gather(*(refused() for _ in range(8)))
    assert (await ledger.row(it))["attempts"] == 1
    assert not await ledger.report(it, DELIVERED, attempt=0)
    assert await ledger.report(it, DELIVERED, attempt=1)


async def test_the_result_of_the_attempt_before_counts_while_its_box_is_the_current_one(
    ledger: Ledger,
) -> None:
    it = await ledger.delegation(await ledger.workspace(), state=DELIVERED)
    assert not await ledger.report(it, PROCESSED, attempt=1)  # of an attempt that was not made
    assert await ledger.report(it, PROCESSED, attempt=0)


async def test_fifty_creations_under_one_key_are_one_delegation(ledger: Ledger) -> None:
    source, target = await ledger.workspace(), await ledger.workspace()
    await ledger.rows("DELETE FROM delegation_outbox")

    async def created(number: int) -> str:
        new = NewDelegation(
            delegation_id=f"{source}-{number}",
            type=DelegationType.DELEGATE,
            source_id=source,
            target_id=target,
            task="do it",
            idempotency_key="the same",
        )
        async with ledger.transaction() as conn:
            known = await delegations.create(conn, new)
        return new.delegation_id if known is None else known.delegation_id

    created_ids = await asyncio.gather(*(created(number) for number in range(50)))
    rows = await ledger.rows("SELECT delegation_id FROM delegations WHERE source_id = %s", source)
    assert [row["delegation_id"] for row in rows] == [created_ids[0]]
    assert set(created_ids) == {created_ids[0]}
    assert await ledger.rows("SELECT delegation_id FROM delegation_outbox") == rows


async def test_two_sources_may_use_one_key_and_one_id_stays_one_delegation(ledger: Ledger) -> None:
    sources, target = [await ledger.workspace() for _ in range(2)], await ledger.workspace()
    seen: list[DelegationRecord | None] = []
    async with ledger.transaction() as conn:
        for number, source in enumerate([*sources, sources[0]]):
            new = NewDelegation(
                delegation_id=f"{target}-{number % 2}",
                type=DelegationType.DELEGATE,
                source_id=source,
                target_id=target,
                task=f"task {number}",
                idempotency_key="the same" if number < 2 else "another",
            )
            known = await delegations.create(conn, new)
            assert (known is None) == (number < 2)
            seen.append(known)
    known = seen[-1]
    assert known is not None
    assert (known.delegation_id, known.source_id, known.same_task) == (f"{target}-0", sources[0], False)


async def test_two_results_of_one_target_at_once_both_count(ledger: Ledger) -> None:
    target = await ledger.workspace()
    one, other = [await ledger.delegation(target, state=DELIVERED) for _ in range(2)]
    began = asyncio.Event()

    async def first() -> None:
        async with ledger.transaction() as conn:
            assert await delegations.record_progress(conn, one, PROCESSED, generation=1, attempt=None)
            began.set()
            await ledger.until_waiting()
            await agent_liveness.record_processed(conn, target, generation=1)

    async def second() -> None:
        await began.wait()
        async with ledger.transaction() as conn:
            assert await delegations.record_progress(conn, other, PROCESSED, generation=1, attempt=None)
            await agent_liveness.record_processed(conn, target, generation=1)

    assert list(await asyncio.gather(first(), second(), return_exceptions=True)) == [None, None]


async def test_an_answered_canary_and_the_next_generation_do_not_deadlock(ledger: Ledger) -> None:
    target = await ledger.workspace()
    canary = await ledger.delegation(target, type_=DelegationType.CANARY)  # a first canary without an answer
    began = asyncio.Event()

    async def opening() -> None:
        async with ledger.transaction() as conn:
            await generations.lock(conn, target)
            await delegations.cancel_canaries(conn, target)
            began.set()
            await ledger.until_waiting()
            await open_next(conn, target, 2)

    async def answered() -> bool:
        await began.wait()
        return await ledger.report(canary, PROCESSED)

    assert list(await asyncio.gather(opening(), answered(), return_exceptions=True)) == [None, False]
