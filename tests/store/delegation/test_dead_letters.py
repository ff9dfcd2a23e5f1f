"""Dead letters and stalls: flags that race with an operator's command or the target's progress."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import cast

import pytest

from devstack.postgres import Postgres
from store.delegation import delegations
from tests.database import migrated_database, patient_pool
from tests.store.delegation.ledger import Ledger
from workflows.delegation.rules import DelegationState

pytestmark = pytest.mark.anyio

DELIVERED, ACKED = DelegationState.DELIVERED, DelegationState.ACKED
PROCESSED, CANCELED = DelegationState.PROCESSED, DelegationState.CANCELED


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "dead_letters")


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    async with patient_pool(database, maximum=6) as pool:
        yield Ledger(pool)


@pytest.mark.parametrize("first", ["resend", "give up"])
async def test_a_dead_letter_is_sent_again_or_given_up_and_the_end_stays(ledger: Ledger, first: str) -> None:
    it = await ledger.delegation(await ledger.workspace())
    await ledger.rows(
        "UPDATE delegations SET dead_lettered = true, attempts = 5 WHERE delegation_id = %s", it
    )

    async def resent() -> bool:
        async with ledger.transaction() as conn:
            return await delegations.resend(conn, it)

    async with ledger.transaction() as conn:
        if first == "resend":
            assert await delegations.resend(conn, it)
            late = asyncio.ensure_future(ledger.end(it, CANCELED))
        else:
            assert await delegations.end(conn, it, CANCELED, code="given_up", error="", attempt=None)
            late = asyncio.ensure_future(resent())
        await ledger.until_waiting()
    assert await late is (first == "resend")
    row = await ledger.row(it)
    assert (row["state"], row["dead_lettered"]) == (CANCELED, False)


@pytest.mark.parametrize("state", [DELIVERED, ACKED, PROCESSED])
async def test_only_what_is_queued_can_be_sent_again(ledger: Ledger, state: DelegationState) -> None:
    it = await ledger.delegation(await ledger.workspace(), state=state)
    before = await ledger.row(it)
    async with ledger.transaction() as conn:
        assert not await delegations.resend(conn, it)
    assert await ledger.row(it) == before


async def test_a_dead_letter_that_was_acknowledged_meanwhile_is_none(ledger: Ledger) -> None:
    it = await ledger.delegation(await ledger.workspace())
    assert await ledger.report(it, ACKED)
    async with ledger.transaction() as conn:
        await delegations.dead_letter(conn, it, attempt=0)  # decided before the ack
    assert (await ledger.row(it))["dead_lettered"] is False


async def test_an_ack_ends_a_dead_letter(ledger: Ledger) -> None:
    it = await ledger.delegation(await ledger.workspace())
    async with ledger.transaction() as conn:
        await delegations.dead_letter(conn, it, attempt=0)
    assert (await ledger.row(it))["dead_lettered"] is True
    async with ledger.transaction() as conn:
        await delegations.dead_letter(conn, it, attempt=0)
    assert await ledger.report(it, ACKED)
    assert (await ledger.row(it))["dead_lettered"] is False


async def test_progress_that_was_reported_meanwhile_is_no_stall(ledger: Ledger) -> None:
    it = await ledger.delegation(await ledger.workspace(), state=ACKED)
    seen = cast("datetime", (await ledger.row(it))["progressed_at"])
    async with ledger.transaction() as conn:
        await delegations.refresh_progress(conn, it, generation=1)
        await delegations.mark_stalled(conn, it, progressed_at=seen)  # decided before the progress
    assert (await ledger.row(it))["stalled"] is False
