"""Enrolling, opening and closing on a real PostgreSQL, once and twice and side by side."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from store.registration.credentials import new_nonce
from tests.activities.world import World
from workflows.workspace import contract
from workflows.workspace.admission import KEPT_OUTCOMES
from workflows.workspace.enums import Intent
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.requests import OutcomeKind, RequestKind

pytestmark = pytest.mark.anyio


async def open_after(world: World, after: int) -> int:
    request = contract.OpenGeneration(workspace_id=world.workspace_id, after=after)
    return (await world.run(contract.open_generation, request)).generation


async def mint(world: World, generation: int, state: str) -> None:
    await world.rows(
        "INSERT INTO tokens (workspace_id, generation, state, sha256, prefix, key_id, nonce)"
        " VALUES (%(workspace_id)s, %(generation)s, %(state)s, %(sha256)s, '12345678', 'k1', %(nonce)s)",
        generation=generation,
        state=state,
        sha256=new_nonce() + new_nonce(),
        nonce=new_nonce() if state == "pending" else None,
    )


async def token_states(world: World) -> list[str]:
    rows = await world.rows("SELECT state, nonce FROM tokens WHERE workspace_id = %(workspace_id)s")
    assert all(row["nonce"] is None for row in rows if row["state"] != "pending")
    return sorted(str(row["state"]) for row in rows)


async def test_a_new_workspace_is_enrolled_with_nothing_open(world: World) -> None:
    record = await world.enrolled()
    assert (record.generation, record.current, record.revision, record.attempt) == (0, False, 0, 1)
    assert (record.intent, record.deleted) == (Intent.RUN, False)
    assert (record.automatic, record.accepted) == ((), ())
    assert await world.enrolled() == record


async def test_an_empty_spec_never_replaces_a_stored_one_and_a_full_one_does(world: World) -> None:
    spec = WorkspaceSpec(register_deadline_seconds=42)
    assert (await world.enrolled(spec)).timings.register_deadline == timedelta(seconds=42)
    assert (await world.enrolled()).timings.register_deadline == timedelta(seconds=42)
    newer = await world.enrolled(WorkspaceSpec(register_deadline_seconds=43))
    assert newer.timings.register_deadline == timedelta(seconds=43)


@pytest.mark.parametrize("workspace_id", ["", "-ws", "WS", "a.b", "x" * 64, "ws\n"])
async def test_an_id_that_is_no_dns_label_is_refused_before_it_is_stored(
    world: World, workspace_id: str
) -> None:
    request = contract.Enroll(workspace_id=workspace_id, spec=WorkspaceSpec())
    error = await world.fails(contract.enroll, request)
    assert error.type == "invalid_workspace_id"
    assert error.non_retryable
    assert "DNS label" in error.message


async def test_twenty_openings_at_once_open_one(world: World) -> None:
    await world.enrolled()
    opened = await asyncio.gather(*(open_after(world, 0) for _ in range(20)))
    assert set(opened) == {1}


async def test_the_next_generation_supersedes_the_old_one_and_revokes_its_tokens(world: World) -> None:
    await world.opened()
    for state in ("pending", "active", "retiring"):
        await mint(world, 1, state)
    assert await open_after(world, 1) == 2
    assert await token_states(world) == ["revoked"] * 3
    rows = await world.rows(
        "SELECT generation FROM generations WHERE workspace_id = %(workspace_id)s AND superseded_at IS NULL"
    )
    assert [row["generation"] for row in rows] == [2]


async def test_a_generation_starts_without_the_heartbeats_of_the_one_before(world: World) -> None:
    await world.opened()
    await world.rows(
        "UPDATE heartbeats SET last_heartbeat_at = now(), stale_since = now(), current_task = 'x',"
        " active_tasks = 3"
        " WHERE workspace_id = %(workspace_id)s"
    )
    await open_after(world, 1)
    (row,) = await world.rows("SELECT * FROM heartbeats WHERE workspace_id = %(workspace_id)s")
    assert (row["generation"], row["last_heartbeat_at"], row["stale_since"]) == (2, None, None)
    assert (row["current_task"], row["active_tasks"]) == ("", 0)


async def test_the_record_shows_provisioning_at_first_and_recreating_later(world: World) -> None:
    await world.opened()
    assert (await world.workspace_row())["phase"] == "provisioning"
    await open_after(world, 1)
    assert (await world.workspace_row())["phase"] == "recreating"


async def test_a_workflow_that_was_reset_gets_the_newest_generation_and_opens_none(world: World) -> None:
    await world.opened()
    assert await open_after(world, 1) == 2
    assert await open_after(world, 2) == 3
    assert await open_after(world, 0) == 3


async def test_a_reset_opens_nothing_in_a_workspace_that_was_stopped_meanwhile(world: World) -> None:
    await world.opened()
    await open_after(world, 1)
    await world.closed(2)
    request = contract.OpenGeneration(workspace_id=world.workspace_id, after=0)
    assert (await world.fails(contract.open_generation, request)).type == contract.SUPERSEDED
    assert (await world.enrolled()).intent is Intent.STOP
    assert await open_after(world, 2) == 3


async def test_a_late_opening_of_a_generation_that_a_stop_gave_up_opens_nothing(world: World) -> None:
    await world.opened()
    await world.closed(2)  # 2 was decided on, and given up before it was opened
    late = contract.OpenGeneration(workspace_id=world.workspace_id, after=1)
    assert (await world.fails(contract.open_generation, late)).type == contract.SUPERSEDED
    assert (await world.enrolled()).intent is Intent.STOP
    assert await open_after(world, 2) == 3


async def test_a_start_after_a_stop_opens_and_runs_again(world: World) -> None:
    await world.opened()
    await world.closed(1)
    assert await open_after(world, 1) == 2
    assert (await world.workspace_row())["intent"] == "run"


async def test_a_stop_closes_once_and_twice(world: World) -> None:
    await world.opened()
    await mint(world, 1, "active")
    for _ in range(2):
        await world.closed(1)
    record = await world.enrolled()
    assert (record.intent, record.current, record.generation) == (Intent.STOP, False, 1)
    assert await token_states(world) == ["revoked"]


async def test_a_late_stop_does_not_close_what_a_start_opened(world: World) -> None:
    await world.opened()
    await open_after(world, 1)
    request = contract.CloseWorkspace(workspace_id=world.workspace_id, generation=1, intent=Intent.STOP)
    error = await world.fails(contract.close_workspace, request)
    assert error.type == contract.SUPERSEDED
    assert (await world.enrolled()).current


async def test_nothing_opens_in_a_deleted_workspace(world: World) -> None:
    await world.opened()
    await world.closed(1, intent=Intent.DELETE)
    await world.closed(1, intent=Intent.STOP)  # late, and too late
    request = contract.OpenGeneration(workspace_id=world.workspace_id, after=1)
    error = await world.fails(contract.open_generation, request)
    assert (error.type, error.non_retryable) == ("workspace_deleted", True)
    assert (await world.enrolled()).intent is Intent.DELETE


@pytest.mark.parametrize(
    ("port", "make"),
    [
        (contract.open_generation, lambda name: contract.OpenGeneration(workspace_id=name, after=0)),
        (
            contract.close_workspace,
            lambda name: contract.CloseWorkspace(workspace_id=name, generation=1, intent=Intent.STOP),
        ),
    ],
)
async def test_a_workspace_without_a_record_is_a_final_error(
    world: World, port: Callable[[object], Awaitable[object]], make: Callable[[str], object]
) -> None:
    error = await world.fails(port, make("ws-nobody"))
    assert (error.type, error.non_retryable) == ("workspace_unknown", True)


async def test_enrolling_again_returns_what_the_box_did_meanwhile(world: World) -> None:
    await world.opened()
    await world.rows("UPDATE generations SET registered_at = now() WHERE workspace_id = %(workspace_id)s;")
    await world.rows("UPDATE heartbeats SET last_heartbeat_at = now() WHERE workspace_id = %(workspace_id)s")
    record = await world.enrolled()
    assert record.current
    assert record.registered_at is not None
    assert record.heartbeat_at is not None
    await world.rows(
        "UPDATE heartbeats SET last_heartbeat_at = now() - interval '91 s' WHERE workspace_id ="
        " %(workspace_id)s"
    )
    assert (await world.enrolled()).heartbeat_at is None


async def test_enrolling_again_returns_the_newest_requests_oldest_first(world: World) -> None:
    assert (await world.enrolled()).decided == ()
    await world.rows(
        "INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, force,"
        " decided_at, outcome,"
        " generation, detail) SELECT %(workspace_id)s, 'r' || n, 'recreate', 'watchdog', 'silent', false,"
        " now() - n * interval '1 minute', 'joined', 1, 'on its way' FROM generate_series(0, %(last)s) AS n",
        last=KEPT_OUTCOMES,
    )
    decided = (await world.enrolled()).decided
    assert [each.request_id for each in decided] == [
        f"r{number}" for number in reversed(range(KEPT_OUTCOMES))
    ]
    newest = decided[-1]
    assert (newest.kind, newest.outcome) == (RequestKind.RECREATE, OutcomeKind.JOINED)
    assert (newest.requested_by, newest.reason, newest.detail) == ("watchdog", "silent", "on its way")
    assert (newest.observed_generation, newest.retry_at, newest.generation) == (None, None, 1)


async def test_enrolling_again_returns_the_recreates_of_a_day(world: World) -> None:
    await world.enrolled()
    now = datetime.now(UTC)
    for number, (kind, outcome, requester, age) in enumerate(
        [
            ("recreate", "accepted", "watchdog", timedelta(hours=1)),
            ("recreate", "accepted", "admin:alice", timedelta(hours=2)),
            ("recreate", "accepted", "watchdog", timedelta(hours=25)),
            ("recreate", "joined", "watchdog", timedelta(hours=1)),
            ("stop", "accepted", "watchdog", timedelta(hours=1)),
        ]
    ):
        await world.rows(
            "INSERT INTO requests (workspace_id, request_id, kind, requested_by, reason, force,"
            " decided_at, outcome,"
            " generation, detail) VALUES (%(workspace_id)s, %(id)s, %(kind)s, %(by)s, '', false, %(at)s,"
            " %(outcome)s, 1, '')",
            id=f"r{number}",
            kind=kind,
            by=requester,
            at=now - age,
            outcome=outcome,
        )
    record = await world.enrolled()
    assert record.automatic == (now - timedelta(hours=1),)
    assert record.accepted == (now - timedelta(hours=2), now - timedelta(hours=1))
