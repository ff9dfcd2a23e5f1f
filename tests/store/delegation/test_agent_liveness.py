"""Which boxes are said not to process: once, with the reason, and until they do again."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import cast

import pytest

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.delegation import agent_liveness, delegations
from store.delegation.agent_liveness import LivenessThresholds
from tests.database import migrated_database, patient_pool
from tests.store.delegation.ledger import Ledger
from workflows.delegation.rules import DelegationState, DelegationType

pytestmark = pytest.mark.anyio

DELIVERED, ACKED = DelegationState.DELIVERED, DelegationState.ACKED
PROCESSED = DelegationState.PROCESSED
PATIENCE = LivenessThresholds(
    ack=timedelta(seconds=120),
    progress=timedelta(minutes=10),
    expires_after=timedelta(hours=6),
    heartbeat_stale=timedelta(seconds=90),
)
TOLD_DEAD, TOLD_WELL = (1, "not_processing"), (1, "processing")


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "processing")


@pytest.fixture
async def ledger(database: str) -> AsyncIterator[Ledger]:
    async with patient_pool(database, maximum=6) as pool:
        ledger = Ledger(pool)
        await ledger.rows("TRUNCATE workspaces, workspace_outbox, delegation_outbox CASCADE")
        yield ledger


async def mark(ledger: Ledger) -> tuple[int, int]:
    async with ledger.held() as conn:
        return await agent_liveness.mark_agents(conn, PATIENCE)


async def age(conn: Connection, delegation_id: str, seconds: float) -> None:
    """Let its delivery lie so far back.

    In the transaction of a scan it is exactly so far: `now()` stands still there, and the machine may not.
    """
    await conn.execute(
        "UPDATE delegations SET delivered_at = now() - %s WHERE delegation_id = %s",
        [timedelta(seconds=seconds), delegation_id],
    )


async def aged(ledger: Ledger, delegation_id: str, seconds: float) -> str:
    async with ledger.held() as conn:
        await age(conn, delegation_id, seconds)
    return delegation_id


async def delivered(ledger: Ledger, target: str, *, seconds: float) -> str:
    return await aged(ledger, await ledger.delegation(target, state=DELIVERED), seconds)


async def beat(
    conn: Connection, target: str, *, ago: float = 0, busy: bool | None = None, tasks: int = 0
) -> None:
    await conn.execute(
        "UPDATE heartbeats SET last_heartbeat_at = now() - %s, is_busy = %s, active_tasks = %s WHERE"
        " workspace_id = %s",
        [timedelta(seconds=ago), busy, tasks, target],
    )


async def beating(ledger: Ledger, target: str, *, busy: bool | None = None, tasks: int = 0) -> None:
    async with ledger.held() as conn:
        await beat(conn, target, busy=busy, tasks=tasks)


async def test_work_that_is_not_acknowledged_in_time_is_told_once_and_says_why(ledger: Ledger) -> None:
    target, other = await ledger.workspace(), await ledger.workspace()
    ages = {await ledger.delegation(target, state=DELIVERED): seconds for seconds in (121, 500, 10)}
    ages[await ledger.delegation(other, state=DELIVERED)] = 119
    async with ledger.held() as conn:
        for it, seconds in ages.items():
            await age(conn, it, seconds)
        assert await agent_liveness.mark_agents(conn, PATIENCE) == (1, 0)
        assert await agent_liveness.mark_agents(conn, PATIENCE) == (0, 0)
    assert (await ledger.facts(target), await ledger.facts(other)) == ([TOLD_DEAD], [])
    [fact] = await ledger.rows("SELECT detail FROM workspace_outbox")
    assert fact["detail"] == "2 delegations were delivered and not acknowledged"
    [row] = await ledger.rows("SELECT * FROM generations WHERE agent_unresponsive_since IS NOT NULL")
    assert (row["workspace_id"], row["agent_unresponsive_reason"]) == (target, fact["detail"])


@pytest.mark.parametrize(
    ("seconds", "ago", "busy", "tasks", "dead"),
    [
        (300, 10, True, 0, False),
        (300, 10, None, 1, False),
        (300, 10, False, 3, False),
        (300, 10, False, 0, True),
        (300, 10, None, 0, True),
        (300, 100, True, 2, True),  # what it said is old
        (599, 10, True, 2, False),
        (601, 10, True, 2, True),  # nothing takes longer to be acknowledged than the deadline for progress
    ],
)
async def test_busy_is_not_dead(
    ledger: Ledger, seconds: float, ago: float, busy: bool | None, tasks: int, dead: bool
) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=DELIVERED)
    async with ledger.held() as conn:
        await age(conn, it, seconds)
        await beat(conn, target, ago=ago, busy=busy, tasks=tasks)
        assert await agent_liveness.mark_agents(conn, PATIENCE) == (int(dead), 0)


async def test_what_the_box_before_said_of_itself_does_not_help_the_next_one(ledger: Ledger) -> None:
    target = await ledger.workspace()
    await beating(ledger, target, busy=True, tasks=2)
    await ledger.opened(target, 2)
    await aged(ledger, await ledger.delegation(target, state=DELIVERED, generation=2), 300)
    assert await mark(ledger) == (1, 0)
    assert await ledger.facts(target) == [(2, "not_processing")]


async def test_a_stalled_delegation_is_told_whatever_the_box_says(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=ACKED)
    await beating(ledger, target, busy=True)
    assert await mark(ledger) == (0, 0)
    async with ledger.held() as conn:
        seen = (await ledger.row(it))["progressed_at"]
        await delegations.mark_stalled(conn, it, progressed_at=cast("datetime", seen))
    assert await mark(ledger) == (1, 0)
    [fact] = await ledger.rows("SELECT detail FROM workspace_outbox")
    assert fact["detail"] == "1 delegations are stalled: nothing was heard of them"
    async with ledger.held() as conn:
        await delegations.refresh_progress(conn, it, generation=1)
    assert await mark(ledger) == (0, 1)
    assert await ledger.facts(target) == [TOLD_DEAD, TOLD_WELL]


@pytest.mark.parametrize("then", [ACKED, PROCESSED, DelegationState.FAILED])
async def test_a_word_about_the_last_of_them_is_a_sign_of_life_told_once(
    ledger: Ledger, then: DelegationState
) -> None:
    target = await ledger.workspace()
    one, other = [await delivered(ledger, target, seconds=130) for _ in range(2)]
    assert await mark(ledger) == (1, 0)
    assert await ledger.heard(one, then)
    assert await mark(ledger) == (0, 0)
    assert await ledger.heard(other, then)
    assert await mark(ledger) == (0, 1)
    assert await mark(ledger) == (0, 0)
    assert await ledger.facts(target) == [TOLD_DEAD, TOLD_WELL]
    await delivered(ledger, target, seconds=130)  # and again
    assert await mark(ledger) == (1, 0)


async def test_a_box_whose_work_ended_otherwise_is_not_held_against_it_any_longer(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await delivered(ledger, target, seconds=130)
    assert await mark(ledger) == (1, 0)
    assert await ledger.ended(it, DelegationState.EXPIRED)
    assert await mark(ledger) == (0, 1)


async def test_nothing_is_told_of_a_box_that_was_replaced(ledger: Ledger) -> None:
    target, told = await ledger.workspace(), await ledger.workspace()
    await delivered(ledger, told, seconds=130)
    assert await mark(ledger) == (1, 0)
    await delivered(ledger, target, seconds=130)
    for workspace in (target, told):
        await ledger.opened(workspace, 2)
    assert await mark(ledger) == (0, 0)
    assert await ledger.facts(target) == []


async def test_what_a_runtime_sends_itself_says_nothing_about_its_target(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, type_=DelegationType.RECORD)
    await ledger.rows(
        "UPDATE delegations SET state = 'delivered', target_generation = 1 WHERE delegation_id = %s", it
    )
    await aged(ledger, it, 10_000)
    assert await mark(ledger) == (0, 0)


async def test_the_first_result_of_a_box_is_told_and_every_one_is_written_down(ledger: Ledger) -> None:
    target = await ledger.workspace()
    seen = []
    for _ in range(2):
        async with ledger.held() as conn:
            await agent_liveness.record_processed(conn, target, generation=1)
        seen += await ledger.rows("SELECT last_processed_at AS at FROM generations")
    assert await ledger.facts(target) == [TOLD_WELL]
    assert str(seen[0]["at"]) < str(seen[1]["at"])
    await ledger.opened(target, 2)
    async with ledger.held() as conn:
        await agent_liveness.record_canary_answer(
            conn, target, generation=2
        )  # the lifecycle asked, and knows
        await agent_liveness.record_processed(conn, target, generation=2)
    assert await ledger.facts(target) == [TOLD_WELL]


async def test_two_scans_at_once_tell_once_that_a_box_processes_again(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await delivered(ledger, target, seconds=130)
    await mark(ledger)
    assert await ledger.heard(it, ACKED)
    assert await _both_scans(ledger, target) == [TOLD_DEAD, TOLD_WELL]


async def test_two_scans_at_once_tell_once_that_a_box_does_not_process(ledger: Ledger) -> None:
    target = await ledger.workspace()
    await delivered(ledger, target, seconds=130)
    assert await _both_scans(ledger, target) == [TOLD_DEAD]


async def test_a_scan_that_waits_for_the_next_generation_tells_nothing_of_the_one_before(
    ledger: Ledger,
) -> None:
    target = await ledger.workspace()
    await delivered(ledger, target, seconds=130)
    async with ledger.held() as conn:
        await conn.execute("UPDATE generations SET superseded_at = now() WHERE workspace_id = %s", [target])
        scan = asyncio.ensure_future(mark(ledger))
        await ledger.until_waiting()
    assert await scan == (0, 0)


async def _both_scans(ledger: Ledger, target: str) -> list[tuple[object, object]]:
    """What is told when every worker scans at the same moment."""
    async with ledger.held() as conn:
        await conn.execute("SELECT FROM generations WHERE workspace_id = %s FOR UPDATE", [target])
        scans = asyncio.gather(mark(ledger), mark(ledger))
        await ledger.until_waiting(2)
    await scans
    return await ledger.facts(target)
