"""Unresponsive agents: marked once, with the reason, until they process again."""

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
THRESHOLDS = LivenessThresholds(
    ack=timedelta(seconds=120),
    progress=timedelta(minutes=10),
    expires_after=timedelta(hours=6),
    heartbeat_stale=timedelta(seconds=90),
)
UNRESPONSIVE, RECOVERED = (1, "not_processing"), (1, "processing")


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
    async with ledger.transaction() as conn:
        return await agent_liveness.mark_agents(conn, THRESHOLDS)


async def age(conn: Connection, delegation_id: str, seconds: float) -> None:
    """Move the delivery back. Exact within the transaction of a scan, in which `now()` is constant."""
    await conn.execute(
        "UPDATE delegations SET delivered_at = now() - %s WHERE delegation_id = %s",
        [timedelta(seconds=seconds), delegation_id],
    )


async def aged(ledger: Ledger, delegation_id: str, seconds: float) -> str:
    async with ledger.transaction() as conn:
        await age(conn, delegation_id, seconds)
    return delegation_id


async def delivered(ledger: Ledger, target: str, *, seconds: float) -> str:
    return await aged(ledger, await ledger.delegation(target, state=DELIVERED), seconds)


async def heartbeat(
    conn: Connection, target: str, *, ago: float = 0, busy: bool | None = None, tasks: int = 0
) -> None:
    await conn.execute(
        "UPDATE heartbeats SET last_heartbeat_at = now() - %s, is_busy = %s, active_tasks = %s WHERE"
        " workspace_id = %s",
        [timedelta(seconds=ago), busy, tasks, target],
    )


async def send_heartbeat(ledger: Ledger, target: str, *, busy: bool | None = None, tasks: int = 0) -> None:
    async with ledger.transaction() as conn:
        await heartbeat(conn, target, busy=busy, tasks=tasks)


async def test_unacknowledged_work_is_reported_once_with_its_reason(ledger: Ledger) -> None:
    target, other = await ledger.workspace(), await ledger.workspace()
    ages = {await ledger.delegation(target, state=DELIVERED): seconds for seconds in (121, 500, 10)}
    ages[await ledger.delegation(other, state=DELIVERED)] = 119
    async with ledger.transaction() as conn:
        for it, seconds in ages.items():
            await age(conn, it, seconds)
        assert await agent_liveness.mark_agents(conn, THRESHOLDS) == (1, 0)
        assert await agent_liveness.mark_agents(conn, THRESHOLDS) == (0, 0)
    assert (await ledger.events(target), await ledger.events(other)) == ([UNRESPONSIVE], [])
    [event] = await ledger.rows("SELECT detail FROM workspace_outbox")
    assert event["detail"] == "2 delegations were delivered and not acknowledged"
    [row] = await ledger.rows("SELECT * FROM generations WHERE agent_unresponsive_since IS NOT NULL")
    assert (row["workspace_id"], row["agent_unresponsive_reason"]) == (target, event["detail"])


@pytest.mark.parametrize(
    ("seconds", "ago", "busy", "tasks", "dead"),
    [
        (300, 10, True, 0, False),
        (300, 10, None, 1, False),
        (300, 10, False, 3, False),
        (300, 10, False, 0, True),
        (300, 10, None, 0, True),
        (300, 100, True, 2, True),  # its heartbeat is old
        (599, 10, True, 2, False),
        (601, 10, True, 2, True),  # the deadline for progress also bounds an acknowledgement
    ],
)
async def test_a_busy_box_is_not_unresponsive(
    ledger: Ledger, seconds: float, ago: float, busy: bool | None, tasks: int, dead: bool
) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=DELIVERED)
    async with ledger.transaction() as conn:
        await age(conn, it, seconds)
        await heartbeat(conn, target, ago=ago, busy=busy, tasks=tasks)
        assert await agent_liveness.mark_agents(conn, THRESHOLDS) == (int(dead), 0)


async def test_heartbeats_of_the_previous_box_do_not_count(ledger: Ledger) -> None:
    target = await ledger.workspace()
    await send_heartbeat(ledger, target, busy=True, tasks=2)
    await ledger.opened(target, 2)
    await aged(ledger, await ledger.delegation(target, state=DELIVERED, generation=2), 300)
    assert await mark(ledger) == (1, 0)
    assert await ledger.events(target) == [(2, "not_processing")]


async def test_a_stalled_delegation_is_reported_even_if_the_box_is_busy(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, state=ACKED)
    await send_heartbeat(ledger, target, busy=True)
    assert await mark(ledger) == (0, 0)
    async with ledger.transaction() as conn:
        seen = (await ledger.row(it))["progressed_at"]
        await delegations.mark_stalled(conn, it, progressed_at=cast("datetime", seen))
    assert await mark(ledger) == (1, 0)
    [event] = await ledger.rows("SELECT detail FROM workspace_outbox")
    assert event["detail"] == "1 delegations made no progress"
    async with ledger.transaction() as conn:
        await delegations.refresh_progress(conn, it, generation=1)
    assert await mark(ledger) == (0, 1)
    assert await ledger.events(target) == [UNRESPONSIVE, RECOVERED]


@pytest.mark.parametrize("then", [ACKED, PROCESSED, DelegationState.FAILED])
async def test_progress_on_the_last_delegation_clears_the_mark_once(
    ledger: Ledger, then: DelegationState
) -> None:
    target = await ledger.workspace()
    one, other = [await delivered(ledger, target, seconds=130) for _ in range(2)]
    assert await mark(ledger) == (1, 0)
    assert await ledger.report(one, then)
    assert await mark(ledger) == (0, 0)
    assert await ledger.report(other, then)
    assert await mark(ledger) == (0, 1)
    assert await mark(ledger) == (0, 0)
    assert await ledger.events(target) == [UNRESPONSIVE, RECOVERED]
    await delivered(ledger, target, seconds=130)  # and again
    assert await mark(ledger) == (1, 0)


async def test_the_mark_is_cleared_when_the_work_ended_otherwise(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await delivered(ledger, target, seconds=130)
    assert await mark(ledger) == (1, 0)
    assert await ledger.end(it, DelegationState.EXPIRED)
    assert await mark(ledger) == (0, 1)


async def test_a_replaced_box_is_not_reported(ledger: Ledger) -> None:
    target, other = await ledger.workspace(), await ledger.workspace()
    await delivered(ledger, other, seconds=130)
    assert await mark(ledger) == (1, 0)
    await delivered(ledger, target, seconds=130)
    for workspace in (target, other):
        await ledger.opened(workspace, 2)
    assert await mark(ledger) == (0, 0)
    assert await ledger.events(target) == []


async def test_recorded_delegations_are_no_evidence_about_their_target(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await ledger.delegation(target, type_=DelegationType.RECORD)
    await ledger.rows(
        "UPDATE delegations SET state = 'delivered', target_generation = 1 WHERE delegation_id = %s", it
    )
    await aged(ledger, it, 10_000)
    assert await mark(ledger) == (0, 0)


async def test_the_first_result_of_a_box_inserts_an_event_and_every_one_is_recorded(ledger: Ledger) -> None:
    target = await ledger.workspace()
    seen = []
    for _ in range(2):
        async with ledger.transaction() as conn:
            await agent_liveness.record_processed(conn, target, generation=1)
        seen += await ledger.rows("SELECT last_processed_at AS at FROM generations")
    assert await ledger.events(target) == [RECOVERED]
    assert str(seen[0]["at"]) < str(seen[1]["at"])
    await ledger.opened(target, 2)
    async with ledger.transaction() as conn:
        await agent_liveness.record_canary_answer(
            conn, target, generation=2
        )  # the workflow sent the canary and gets its result
        await agent_liveness.record_processed(conn, target, generation=2)
    assert await ledger.events(target) == [RECOVERED]


async def test_two_concurrent_scans_report_a_recovery_once(ledger: Ledger) -> None:
    target = await ledger.workspace()
    it = await delivered(ledger, target, seconds=130)
    await mark(ledger)
    assert await ledger.report(it, ACKED)
    assert await _both_scans(ledger, target) == [UNRESPONSIVE, RECOVERED]


async def test_two_concurrent_scans_report_an_unresponsive_agent_once(ledger: Ledger) -> None:
    target = await ledger.workspace()
    await delivered(ledger, target, seconds=130)
    assert await _both_scans(ledger, target) == [UNRESPONSIVE]


async def test_a_scan_that_waits_for_the_next_generation_reports_nothing_about_the_old_one(
    ledger: Ledger,
) -> None:
    target = await ledger.workspace()
    await delivered(ledger, target, seconds=130)
    async with ledger.transaction() as conn:
        await conn.execute("UPDATE generations SET superseded_at = now() WHERE workspace_id = %s", [target])
        scan = asyncio.ensure_future(mark(ledger))
        await ledger.until_waiting()
    assert await scan == (0, 0)


async def _both_scans(ledger: Ledger, target: str) -> list[tuple[object, object]]:
    """The events after concurrent scans of two workers."""
    async with ledger.transaction() as conn:
        await conn.execute("SELECT FROM generations WHERE workspace_id = %s FOR UPDATE", [target])
        scans = asyncio.gather(mark(ledger), mark(ledger))
        await ledger.until_waiting(2)
    await scans
    return await ledger.events(target)
