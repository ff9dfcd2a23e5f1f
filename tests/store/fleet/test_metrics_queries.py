"""Fleet metrics on a real PostgreSQL. Metrics that must be 0 are not once an invariant is broken."""

from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from devstack.postgres import Postgres
from store.db.pool import Connection
from store.fleet import fleet_snapshot, metrics_queries
from store.fleet.metrics_queries import FleetMetrics
from store.workspace import status
from tests.database import migrated_database

pytestmark = pytest.mark.anyio

EXPIRE = timedelta(hours=6)


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> str:
    return migrated_database(postgres, "figures")


@pytest.fixture
async def conn(database: str) -> AsyncIterator[Connection]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as conn:
        await conn.execute(
            "TRUNCATE workspaces, workspace_outbox, delegation_outbox, heartbeat_intake,"
            " ec2_inventory, watchdog_status, orphans CASCADE"
        )
        yield conn


async def workspace(conn: Connection, name: str, *, generations: int = 1, phase: str = "online") -> None:
    await conn.execute(
        "INSERT INTO workspaces (workspace_id, generation, phase) VALUES (%s, %s, %s)",
        [name, generations, phase],
    )
    for generation in range(1, generations + 1):
        await conn.execute(
            "INSERT INTO generations (workspace_id, generation, key_id, spec, superseded_at)"
            " VALUES (%s, %s, 'k1', '{}', CASE WHEN %s THEN now() END)",
            [name, generation, generation < generations],
        )
    await conn.execute(
        "INSERT INTO heartbeats (workspace_id, generation, last_heartbeat_at) VALUES (%s, %s, now())",
        [name, generations],
    )


async def token(conn: Connection, name: str, generation: int, state: str) -> None:
    await conn.execute(
        "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, nonce)"
        " VALUES (%s, %s, %s, sha256(gen_random_uuid()::text::bytea), 'abcdefgh', 'k1',"
        " CASE WHEN %s = 'pending' THEN ''::bytea END)",
        [name, generation, state, state],
    )


async def delegation(conn: Connection, name: str, state: str, *, hours: int = 0, ended: bool = False) -> None:
    await conn.execute(
        "INSERT INTO delegations (delegation_id, type, source_id, target_id, task, state, created_at,"
        " delivered_at, ended_at) VALUES (%s, 'delegate', 'a', 'a', '', %s, now() - %s, now() - %s,"
        " CASE WHEN %s THEN now() - %s END)",
        [name, state, *[timedelta(hours=hours)] * 2, ended, timedelta(hours=hours)],
    )


async def read(conn: Connection) -> FleetMetrics:
    return await metrics_queries.read(conn, expire=EXPIRE)


async def test_an_empty_fleet_has_empty_metrics(conn: Connection) -> None:
    seen = await read(conn)
    assert (
        seen.phases,
        seen.running,
        seen.max_live_tokens,
        seen.workspace_events_age,
        seen.running_instances,
    ) == ({}, 0, 0, None, None)


async def test_workspaces_are_counted_by_phase_and_deleted_ones_are_not(conn: Connection) -> None:
    await workspace(conn, "a")
    await workspace(conn, "b", phase="failed")
    await workspace(conn, "c", phase="deleted")
    await conn.execute("UPDATE workspaces SET deleted_at = now() WHERE workspace_id = 'c'")
    assert (await read(conn)).phases == {"online": 1, "failed": 1}


async def test_a_live_token_of_a_superseded_generation_breaks_an_invariant(conn: Connection) -> None:
    await workspace(conn, "a", generations=2)
    for state in ("active", "pending", "retiring"):
        await token(conn, "a", 2, state)
    await token(conn, "a", 1, "revoked")
    seen = await read(conn)
    assert (seen.max_live_tokens, seen.generations_with_extra_tokens) == (3, 0)
    await token(conn, "a", 1, "active")
    assert (await read(conn)).generations_with_extra_tokens == 1


async def test_online_with_stale_heartbeats_after_a_minute_breaks_an_invariant(conn: Connection) -> None:
    await workspace(conn, "a")
    await conn.execute("UPDATE heartbeats SET stale_since = now()")
    seen = await read(conn)
    assert (seen.stale, seen.online_but_stale) == (1, 0)
    await conn.execute("UPDATE heartbeats SET stale_since = now() - interval '2 minutes'")
    assert (await read(conn)).online_but_stale == 1
    await conn.execute("UPDATE workspaces SET phase = 'degraded'")
    assert (await read(conn)).online_but_stale == 0


async def test_a_delegation_that_is_open_long_after_it_expired_breaks_an_invariant(conn: Connection) -> None:
    await workspace(conn, "a")
    await delegation(conn, "young", "delivered", hours=1)
    await delegation(conn, "done", "processed", hours=0, ended=True)
    await delegation(conn, "long-done", "failed", hours=8, ended=True)
    seen = await read(conn)
    assert (seen.delegations, seen.delegations_ended) == ({"delivered": 1}, {"processed": 1})
    assert seen.overdue == 0
    assert seen.oldest_unacked_age == pytest.approx(3600, abs=60)
    await delegation(conn, "old", "acked", hours=7)
    assert (await read(conn)).overdue == 1


async def test_two_live_instances_of_one_workspace_are_counted(conn: Connection) -> None:
    await fleet_snapshot.record_inventory(conn, {"a": 1, "b": 1})
    seen = await read(conn)
    assert (seen.running_instances, seen.workspaces_with_duplicates, seen.max_per_workspace) == (2, 0, 1)
    await fleet_snapshot.record_inventory(conn, {"a": 2, "b": 1})
    seen = await read(conn)
    assert (seen.running_instances, seen.workspaces_with_duplicates, seen.max_per_workspace) == (3, 1, 2)
    await fleet_snapshot.record_inventory(conn, {})
    assert (await read(conn)).max_per_workspace == 0


async def test_the_frozen_state_is_kept_until_the_next_watchdog_run(
    conn: Connection,
) -> None:
    await fleet_snapshot.record_watchdog_run(conn, frozen_reason="EC2 cannot be read: AuthFailure")
    assert (await read(conn)).watchdog_frozen
    await fleet_snapshot.record_watchdog_run(conn, frozen_reason=None)
    seen = await read(conn)
    assert not seen.watchdog_frozen
    assert seen.watchdog_ran_at is not None


async def test_a_generation_comes_online_once_from_the_request_that_it_was_opened_for(
    conn: Connection,
) -> None:
    await workspace(conn, "a", generations=2)
    await conn.execute(
        "INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, force,"
        " decided_at, outcome,"
        " generation, detail) VALUES ('a', 'r', 'recreate', '', '', false, now() - interval '90 s',"
        " 'accepted', 2, '')"
    )
    assert await status.mark_online(conn, "a", generation=1) is None  # superseded: never again
    came = await status.mark_online(conn, "a", generation=2)
    assert came is not None
    assert (came.online_at - came.requested_at).total_seconds() == pytest.approx(90, abs=30)
    assert await status.mark_online(conn, "a", generation=2) is None
