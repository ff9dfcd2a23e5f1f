"""Heartbeats over HTTP: which ones count, what they write, and their cost."""

import asyncio
import tempfile
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta

import pytest
from psycopg import Notify

from store.db.pool import Connection
from store.registration import heartbeats
from store.registration.credentials import token_hash
from tests.register_api.platform import Box, Platform

pytestmark = pytest.mark.anyio


async def test_a_heartbeat_with_a_live_token_counts_and_confirms_it(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    answer = await box.heartbeat(
        active_tasks=2, is_busy=True, error_rate=0.5, sample_error="e\0", current_task="t" * 9000,
        uptime_seconds=12.9, runtime_state="wedged", monthly_spend=1, observed_generation=7,
    )  # fmt: skip
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "lifecycle_generation": 1})
    assert await platform.tokens(box) == ["active"]
    [row] = await platform.rows("SELECT * FROM heartbeats WHERE workspace_id = %s", box)
    assert (row["generation"], row["active_tasks"], row["is_busy"]) == (1, 2, True)
    assert (row["error_rate"], row["sample_error"], row["runtime_state"]) == (0.5, "e", "wedged")
    assert (len(row["current_task"]), row["uptime_seconds"]) == (2000, 12)


async def test_the_first_heartbeat_of_a_generation_is_an_event_and_the_others_are_not(
    platform: Platform,
) -> None:
    box = await (await platform.workspace()).enter_and_use()
    for _ in range(3):
        assert (await box.heartbeat()).status_code == 200
    new = await (await platform.replaced(box)).enter_and_use()
    await new.heartbeat()
    assert await platform.events(box) == [
        (1, "registered"), (1, "alive"), (2, "registered"), (2, "alive"),
    ]  # fmt: skip


async def test_a_row_that_waits_for_the_first_heartbeat_does_not_hide_it(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute(
        "UPDATE heartbeats SET alive_since = now() - interval '1 day' WHERE workspace_id = %s",
        [box.workspace_id],
    )
    await box.heartbeat()
    assert await platform.events(box) == [(1, "registered"), (1, "alive")]


async def test_parallel_first_heartbeats_are_one_event(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    answers = await asyncio.gather(*(box.heartbeat() for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert await platform.events(box) == [(1, "registered"), (1, "alive")]


async def test_the_first_heartbeat_after_silence_is_an_event_again(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    await platform.age(box, timedelta(seconds=91))
    async with platform.pool.connection() as conn:
        await heartbeats.mark_stale(conn, older_than=timedelta(seconds=90), limit=100)
    await box.heartbeat()
    await box.heartbeat()
    assert await platform.events(box) == [(1, "registered"), (1, "alive"), (1, "stale"), (1, "alive")]


async def test_a_pending_token_beside_an_active_one_can_be_confirmed(platform: Platform) -> None:
    old = await (await platform.workspace()).enter_and_use()
    await platform.age(old, timedelta(seconds=61))
    new = await replace(old, token=None).enter()
    # Register never leaves this state; the index of active tokens must not turn it into an error.
    await platform.database.execute(
        "UPDATE tokens SET state = 'active' WHERE workspace_id = %s AND state = 'retiring'",
        [old.workspace_id],
    )
    assert (await new.heartbeat()).status_code == 200
    assert await platform.tokens(old) == ["revoked", "active"]


async def test_a_token_that_is_revoked_while_a_heartbeat_comes_in_counts_no_more(platform: Platform) -> None:
    box = await (await platform.workspace()).enter_and_use()
    async with platform.database.transaction():
        await platform.database.execute(
            "UPDATE generations SET superseded_at = now() WHERE workspace_id = %s", [box.workspace_id]
        )
        await platform.database.execute(
            "UPDATE tokens SET state = 'revoked' WHERE workspace_id = %s", [box.workspace_id]
        )
        before = await platform.rows("SELECT * FROM heartbeats WHERE workspace_id = %s", box)
        call = asyncio.create_task(box.heartbeat())
        async with asyncio.timeout(60), platform.pool.connection() as conn:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            while await (await conn.execute(waiting)).fetchone() == (0,):
                pass
    assert (await call).status_code == 410
    assert await platform.rows("SELECT * FROM heartbeats WHERE workspace_id = %s", box) == before


async def test_a_heartbeat_is_one_round_trip(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    async with platform.pool.connection() as conn:
        await _traced_heartbeat(conn, box)  # the first one on a connection also prepares the statement
        assert (await _traced_heartbeat(conn, box)).count(b"ReadyForQuery") == 1


async def _traced_heartbeat(conn: Connection, box: Box) -> bytes:
    """libpq's trace of one heartbeat."""
    with tempfile.TemporaryFile() as trace:
        conn.pgconn.trace(trace.fileno())
        taken = await heartbeats.record(
            conn,
            box.workspace_id,
            sha256=token_hash(box.token or ""),
            secret_generation=None,
            heartbeat=heartbeats.Heartbeat(),
        )
        conn.pgconn.untrace()
        assert taken is not None
        assert taken.counted
        trace.seek(0)
        return trace.read()


async def test_a_heartbeat_without_a_transition_sends_no_notification(platform: Platform) -> None:
    box = await (await platform.workspace()).enter()
    await platform.database.execute("LISTEN onebox_workspace_outbox")
    for _ in range(3):
        assert (await box.heartbeat()).status_code == 200
    # Notifications arrive in commit order, but at any time: this one is the last.
    async with platform.pool.connection() as conn:
        await conn.execute("NOTIFY onebox_workspace_outbox, 'the last'")
    heard: list[Notify] = []
    async with aclosing(platform.database.notifies(timeout=60)) as notes:
        async for note in notes:
            heard.append(note)
            if note.payload == "the last":
                break
    assert [note.channel for note in heard] == ["onebox_workspace_outbox"] * 2, (
        "the first heartbeat's and the last"
    )
