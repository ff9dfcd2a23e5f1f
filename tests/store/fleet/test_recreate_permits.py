"""The fleet's counts and permits, and the watchdog's findings, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest
from psycopg.types.json import Jsonb

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.fleet import recreate_permits, watchdog_queries
from store.fleet.watchdog_queries import Finding, WatchdogThresholds
from tests.database import migrated_database

pytestmark = pytest.mark.anyio

SPEC = {"timings": {"register_deadline": "PT10M", "not_processing": "PT3M"}}
HOUR = 3600


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "fleet")


@pytest.fixture
async def committing(database: str) -> AsyncIterator[Connection]:
    """A connection whose changes other sessions see."""
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute("TRUNCATE workspaces, workspace_outbox, heartbeat_intake CASCADE")
        yield conn


@pytest.fixture
async def conn(committing: Connection) -> AsyncIterator[Connection]:
    """A connection in one transaction, so that `now()` is constant on a slow machine."""
    async with committing.transaction():
        yield committing


async def box(
    conn: Connection,
    name: str,
    *,
    generation: int = 1,
    phase: str = "online",
    intent: str = "run",
    stale_for: int | None = None,
    credential_lost_for: int | None = None,
    not_processing_for: int | None = None,
    registered: bool = True,
    opened: int = 2 * HOUR,
    called: int | None = 2 * HOUR,
) -> None:
    """A workspace; times are in seconds before now."""

    def ago(seconds: int | None) -> timedelta | None:
        return None if seconds is None else timedelta(seconds=seconds)

    await conn.execute(
        "INSERT INTO workspaces (workspace_id, intent, generation, phase) VALUES (%s, %s, %s, %s)",
        [name, intent, generation, phase],
    )
    await conn.execute(
        "INSERT INTO generations (workspace_id, generation, key_id, spec, opened_at, registered_at,"
        " agent_unresponsive_since, superseded_at)"
        " VALUES (%s, %s, 'k1', %s, now() - %s, CASE WHEN %s THEN now() END, now() - %s::interval,"
        " CASE WHEN %s <> 'run' THEN now() END)",
        [name, generation, Jsonb(SPEC), ago(opened), registered, ago(not_processing_for), intent],
    )
    if called is not None:
        await conn.execute(
            "INSERT INTO launches (workspace_id, generation, attempt, client_token, request, user_data,"
            " requested_at) VALUES (%s, %s, 1, %s, '{}', '', now() - %s)",
            [name, generation, name, ago(called)],
        )
    await conn.execute(
        "INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at, stale_since,"
        " credential_lost_at)"
        " VALUES (%s, %s, now() - %s, now() - %s::interval, now() - %s::interval)",
        [
            name,
            generation,
            ago(stale_for or 1),
            None if stale_for is None else timedelta(seconds=stale_for - 90),
            ago(credential_lost_for),
        ],
    )


async def answer(conn: Connection, finding: Finding, outcome: str, *, retry_in: int | None = None) -> None:
    await conn.execute(
        "INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, observed_generation,"
        " force, decided_at, outcome, generation, detail, retry_at)"
        " VALUES (%s, %s, 'recreate', 'watchdog', '', %s, false, now(), %s, %s, '', now() + %s::interval)",
        [
            finding.workspace_id,
            finding.request_id,
            finding.generation,
            outcome,
            finding.generation,
            None if retry_in is None else timedelta(seconds=retry_in),
        ],
    )


async def find(conn: Connection, limit: int = 100) -> list[Finding]:
    return await watchdog_queries.find_due(
        conn, thresholds=WatchdogThresholds(), lifecycle="lifecycle", limit=limit
    )


async def causes(conn: Connection) -> dict[str, str]:
    return {each.workspace_id: each.cause for each in await find(conn)}


async def test_running_and_stale_workspaces_are_counted_by_their_current_generation(conn: Connection) -> None:
    await box(conn, "well")
    await box(conn, "silent", stale_for=100)
    await box(conn, "stopped", stale_for=100, intent="stop")
    counts = await recreate_permits.read_counts(conn)
    assert (counts.running, counts.stale, counts.recreating) == (2, 1, 0)
    assert (counts.intake_at, counts.intake_since) == (None, None)


@pytest.mark.parametrize(
    ("generation", "phase", "granted_ago", "in_use"),
    [
        (1, "online", 59, True),  # granted, not opened yet
        (1, "degraded", 61, False),  # the workflow dropped the recreate
        (2, "recreating", 300, True),
        (2, "awaiting_registration", 300, True),
        (2, "online", 5, False),
        (2, "failed", 5, False),
        (2, "recreating", 3601, False),  # waits for an operator
        (3, "recreating", 5, False),  # another recreate, requested by an operator
    ],
)
async def test_a_permit_is_in_use_until_its_generation_is_online_or_has_failed(
    conn: Connection, generation: int, phase: str, granted_ago: int, in_use: bool
) -> None:
    await box(conn, "ws", generation=generation, phase=phase)
    await recreate_permits.grant_permit(conn, "ws", generation=2)
    await conn.execute(
        "UPDATE recreate_permits SET granted_at = now() - %s", [timedelta(seconds=granted_ago)]
    )
    assert (await recreate_permits.read_counts(conn)).recreating == in_use
    assert (await recreate_permits.read_counts(conn, exclude="ws")).recreating == 0


async def test_intake_without_a_gap_has_no_beginning_and_a_gap_begins_it_anew(conn: Connection) -> None:
    gap = timedelta(seconds=90)
    await recreate_permits.record_intake(conn, gap=gap)
    await recreate_permits.record_intake(conn, gap=gap)
    before = await recreate_permits.read_counts(conn)
    assert before.intake_since is None
    await conn.execute("UPDATE heartbeat_intake SET last_seen_at = now() - %s", [timedelta(seconds=89)])
    await recreate_permits.record_intake(conn, gap=gap)
    assert (await recreate_permits.read_counts(conn)).intake_since is None
    await conn.execute("UPDATE heartbeat_intake SET last_seen_at = now() - %s", [gap])
    await recreate_permits.record_intake(conn, gap=gap)
    after = await recreate_permits.read_counts(conn)
    assert after.intake_since == after.intake_at
    began = after.now - timedelta(seconds=30)
    await conn.execute("UPDATE heartbeat_intake SET gapless_since = %s, last_seen_at = %s", [began, began])
    await recreate_permits.record_intake(conn, gap=gap)
    later = await recreate_permits.read_counts(conn)
    assert (later.intake_since, later.intake_at) == (began, after.now)


async def test_permits_are_granted_one_after_the_other(committing: Connection, database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as other:
        async with committing.transaction():
            await recreate_permits.lock(committing)
            waiting = asyncio.create_task(recreate_permits.lock(other))
            blocked = (
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
            )
            while True:
                row = await (await committing.execute(blocked)).fetchone()
                if row == (1,):
                    break
            assert not waiting.done()
        await waiting


async def test_each_cause_is_found_and_what_is_well_is_not(conn: Connection) -> None:
    await box(conn, "well")
    await box(conn, "stale", stale_for=179)
    await box(conn, "silent", stale_for=181)
    await box(conn, "lost", credential_lost_for=181)
    await box(conn, "losing", credential_lost_for=170)
    await box(conn, "dead", not_processing_for=241)
    await box(conn, "dying", not_processing_for=239)
    await box(conn, "dumb", registered=False, called=661)
    await box(conn, "booting", registered=False, called=659)
    await box(conn, "unlaunched", registered=False, called=None, opened=1261)
    await box(conn, "fencing", registered=False, called=None, opened=1259)
    await box(conn, "stopped", intent="stop", stale_for=1000, registered=False)
    assert await causes(conn) == {
        "silent": "stale",
        "lost": "credential_lost",
        "dead": "not_processing",
        "dumb": "unregistered",
        "unlaunched": "unregistered",
    }


async def test_the_oldest_come_first_and_the_rest_are_counted(conn: Connection) -> None:
    for name, seconds in (("a", 200), ("b", 400), ("c", 300)):
        await box(conn, name, stale_for=seconds)
    found = await find(conn, limit=2)
    assert [(each.workspace_id, each.total) for each in found] == [("b", 3), ("c", 3)]


async def test_a_cause_is_requested_once(conn: Connection) -> None:
    await box(conn, "ws", stale_for=200)
    [finding] = await find(conn)
    await watchdog_queries.record_requests(conn, [finding])
    assert await find(conn) == []
    for outcome in ("accepted", "joined", "stale", "rejected"):
        await conn.execute("DELETE FROM requests")
        await answer(conn, finding, outcome)
        await conn.execute("UPDATE watchdog_requests SET last_requested_at = now() - interval '1 day'")
        assert await find(conn) == [], outcome


async def test_a_deferred_request_is_repeated_at_its_time(conn: Connection) -> None:
    await box(conn, "ws", stale_for=200)
    [finding] = await find(conn)
    await watchdog_queries.record_requests(conn, [finding])
    await answer(conn, finding, "deferred", retry_in=10)
    assert await find(conn) == []
    await conn.execute("UPDATE requests SET retry_at = now()")
    [again] = await find(conn)
    assert (again.request_count, again.request_id != finding.request_id) == (1, True)
    await watchdog_queries.record_requests(conn, [again])
    assert await find(conn) == []


async def test_a_cause_that_needs_an_operator_is_not_requested_again(conn: Connection) -> None:
    await box(conn, "ws", stale_for=200)
    [finding] = await find(conn)
    await watchdog_queries.record_requests(conn, [finding])
    await answer(conn, finding, "deferred")
    await conn.execute("UPDATE watchdog_requests SET last_requested_at = now() - interval '1 day'")
    assert await find(conn) == []


async def test_a_request_without_an_outcome_is_repeated(conn: Connection) -> None:
    await box(conn, "ws", stale_for=200)
    await watchdog_queries.record_requests(conn, await find(conn))
    await conn.execute("UPDATE watchdog_requests SET last_requested_at = now() - interval '299 seconds'")
    assert await find(conn) == []
    await conn.execute("UPDATE watchdog_requests SET last_requested_at = now() - interval '301 seconds'")
    assert [each.request_count for each in await find(conn)] == [1]


async def test_a_later_staleness_of_the_same_box_is_another_cause(conn: Connection) -> None:
    await box(conn, "ws", stale_for=400)
    [first] = await find(conn)
    await watchdog_queries.record_requests(conn, [first])
    await answer(conn, first, "joined")
    await conn.execute("UPDATE heartbeats SET stale_since = now() - interval '100 seconds'")
    [second] = await find(conn)
    assert (second.request_count, second.request_id != first.request_id) == (0, True)


@pytest.mark.parametrize("cause", ["unregistered", "not_processing"])
async def test_causes_that_the_workflow_has_requested_itself_are_left_to_it(
    conn: Connection, cause: str
) -> None:
    if cause == "unregistered":
        await box(conn, "ws", registered=False, called=700)
    else:
        await box(conn, "ws", not_processing_for=300)
    [finding] = await find(conn)
    assert finding.cause == cause
    await answer(conn, finding, "deferred", retry_in=5)
    await conn.execute("UPDATE requests SET requested_by = 'lifecycle'")
    assert await find(conn) == []


async def test_a_healthy_fleet_is_checked_by_indexes_only(committing: Connection) -> None:
    await committing.execute(
        "INSERT INTO workspaces (workspace_id, generation) SELECT 'w' || n, 1 FROM generate_series(1, 3000) n"
    )
    await committing.execute(
        "INSERT INTO generations (workspace_id, generation, key_id, spec, registered_at)"
        " SELECT 'w' || n, 1, 'k1', '{}', now() FROM generate_series(1, 3000) n"
    )
    await committing.execute(
        "INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at)"
        " SELECT 'w' || n, 1, now() FROM generate_series(1, 3000) n"
    )
    await committing.execute("ANALYZE")
    await _until_alone(committing)
    before = await _scans(committing)
    assert await find(committing) == []
    assert await _scans(committing) == before


async def _until_alone(conn: Connection) -> None:
    """Wait for the statistics of earlier sessions: PostgreSQL counts a session when it ends."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    while await (await conn.execute(others)).fetchone() != (0,):
        pass


async def _scans(conn: Connection) -> list[tuple[object, ...]]:
    """The number of sequential scans of the large tables."""
    await conn.execute("SELECT pg_stat_force_next_flush()")
    cursor = await conn.execute(
        "SELECT relname, seq_scan FROM pg_stat_user_tables"
        " WHERE relname IN ('workspaces', 'generations', 'heartbeats', 'requests', 'launches') ORDER"
        " BY relname"
    )
    return await cursor.fetchall()
