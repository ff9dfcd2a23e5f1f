"""Statuses and outcomes on the record, written in any order; and the outbox of events."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import REGISTRY

from store.outbox import workspace_events
from tests.activities.world import World
from workflows.workspace import contract
from workflows.workspace.enums import ConditionStatus, ConditionType, Phase, Step
from workflows.workspace.requests import OutcomeKind, Request, RequestKind
from workflows.workspace.state import Condition, LastError

pytestmark = pytest.mark.anyio

AT = datetime(2026, 6, 11, 22, 19, tzinfo=UTC)


def request(request_id: str, *, reason: str = "stalled") -> Request:
    return Request(
        request_id=request_id,
        kind=RequestKind.RECREATE,
        requested_by="watchdog",
        reason=reason,
        observed_generation=1,
        force=False,
        at=AT,
        outcome=OutcomeKind.ACCEPTED,
        generation=2,
        detail="",
    )


def status(
    world: World, revision: int, *requests: Request, phase: Phase = Phase.ONLINE
) -> contract.RecordStatus:
    return contract.RecordStatus(
        workspace_id=world.workspace_id,
        generation=1,
        revision=revision,
        phase=phase,
        last_error=LastError(
            code="aws_unreachable",
            phase=Step.LAUNCH,
            message="no answer\0",
            generation=1,
            attempt=1,
            first_at=AT,
            last_at=AT,
            count=1,
            retryable=True,
            hint="wait",
        ),
        conditions=(
            Condition(
                type=ConditionType.REGISTERED,
                status=ConditionStatus.TRUE,
                reason="Registered",
                message="",
                generation=1,
                last_transition_at=AT,
            ),
        ),
        requests=requests,
    )


async def outcomes(world: World) -> list[object]:
    rows = await world.rows(
        "SELECT request_id FROM requests WHERE workspace_id = %(workspace_id)s ORDER BY request_id"
    )
    return [row["request_id"] for row in rows]


async def test_a_status_is_written_once_however_often_it_is_sent(world: World) -> None:
    await world.opened()
    for _ in range(2):
        recorded = await world.run(contract.record_status, status(world, 3, request("a")))
        assert recorded.revision == 3
    row = await world.workspace_row()
    assert (row["phase"], row["revision"]) == ("online", 3)
    assert isinstance(row["last_error"], dict)
    assert row["last_error"]["code"] == "aws_unreachable"
    assert isinstance(row["conditions"], list)
    assert row["conditions"][0]["type"] == "Registered"
    assert await outcomes(world) == ["a"]


async def test_a_late_status_does_not_replace_a_newer_one_but_its_outcomes_are_kept(world: World) -> None:
    await world.opened()
    await world.run(contract.record_status, status(world, 5, request("b")))
    recorded = await world.run(contract.record_status, status(world, 4, request("a"), phase=Phase.DEGRADED))
    assert recorded.revision == 5
    assert (await world.workspace_row())["phase"] == "online"
    assert await outcomes(world) == ["a", "b"]


async def test_an_outcome_never_changes(world: World) -> None:
    await world.opened()
    await world.run(contract.record_status, status(world, 1, request("a")))
    changed = replace(request("a"), outcome=OutcomeKind.STALE)
    await world.run(contract.record_status, status(world, 2, changed))
    (row,) = await world.rows("SELECT outcome FROM requests WHERE workspace_id = %(workspace_id)s")
    assert row["outcome"] == "accepted"


async def test_a_superseded_status_changes_nothing_but_its_outcomes_are_kept(world: World) -> None:
    await world.opened()
    await world.opened(after=1)
    error = await world.fails(contract.record_status, status(world, 9, request("a")))
    assert (error.type, error.non_retryable) == (contract.SUPERSEDED, True)
    row = await world.workspace_row()
    assert (row["phase"], row["revision"]) == ("recreating", 0)
    assert await outcomes(world) == ["a"]


async def test_a_deletion_is_dated_once(world: World) -> None:
    await world.opened()
    await world.run(contract.record_status, status(world, 1, phase=Phase.DELETED))
    first = (await world.workspace_row())["deleted_at"]
    assert first is not None
    await world.run(contract.record_status, status(world, 2, phase=Phase.DELETED))
    assert (await world.workspace_row())["deleted_at"] == first
    assert (await world.enrolled()).deleted


async def test_a_text_that_postgresql_cannot_hold_does_not_stop_the_record(world: World) -> None:
    await world.opened()
    await world.run(contract.record_status, status(world, 1, request("a\0b", reason="nul \0 inside")))
    (row,) = await world.rows("SELECT reason FROM requests WHERE workspace_id = %(workspace_id)s")
    assert row["reason"] == "nul \N{REPLACEMENT CHARACTER} inside"


async def test_a_workspace_without_a_record_is_a_final_error(world: World) -> None:
    error = await world.fails(contract.record_status, status(world, 1, request("a")))
    assert (error.type, error.non_retryable) == ("workspace_unknown", True)


async def test_events_are_claimed_in_order_by_one_relay_at_a_time(world: World) -> None:
    await world.rows("DELETE FROM workspace_outbox")
    for kind in ("registered", "alive", "stale"):
        await world.rows(
            "INSERT INTO workspace_outbox (workspace_id, generation, kind) VALUES (%(workspace_id)s,"
            " 1, %(kind)s)",
            kind=kind,
        )
    async with world.pool.connection() as first, first.transaction():
        claimed = await workspace_events.claim_batch(first, 2)
        assert [event.kind for event in claimed] == ["registered", "alive"]
        async with world.pool.connection() as second, second.transaction():
            assert [event.kind for event in await workspace_events.claim_batch(second, 9)] == ["stale"]
        await workspace_events.delete(first, [event.event_id for event in claimed])
    async with world.pool.connection() as conn, conn.transaction():
        assert [event.kind for event in await workspace_events.claim_batch(conn, 9)] == ["stale"]
        assert {event.workspace_id for event in await workspace_events.claim_batch(conn, 9)} == {
            world.workspace_id
        }


async def test_an_outcome_and_a_time_to_online_that_are_written_twice_are_counted_once(world: World) -> None:
    def counted() -> tuple[float, float]:
        labels = {"kind": "recreate", "outcome": "accepted", "source": "automatic"}
        outcomes = REGISTRY.get_sample_value("onebox_requests_total", labels)
        online = REGISTRY.get_sample_value("onebox_time_to_online_seconds_count")
        return outcomes or 0, online or 0

    await world.opened()
    outcomes, online = counted()
    for revision in (5, 5, 6):
        await world.run(contract.record_status, status(world, revision, request("r-1")))
    assert counted() == (outcomes + 1, online + 1)
