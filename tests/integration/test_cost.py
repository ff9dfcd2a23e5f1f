"""Temporal actions and AWS calls of a generation and of the fleet's rounds match docs/cost.md."""

from collections.abc import AsyncIterator

import pytest

from bench.parts.events import actions_of
from devstack.console import Console, eventually
from tests.deploy.costs import Cost, documented
from workflows.shared.names import REPAIR_SCHEDULE, SWEEP_SCHEDULE, WATCHDOG_SCHEDULE
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio

SCHEDULED = 2
"""Actions of starting a schedule's workflow, in addition to the workflow's own."""

ROUNDING = 2

MORE, LESS = 2.0, 0.5
"""A generation's polls, timers and status writes depend on timing."""


async def cost_so_far(console: Console, workspace: str) -> Cost:
    history = await console.workflow(workspace).fetch_history()
    return Cost(
        events=len(history.events),
        actions=actions_of(history.events),
        calls=sum(console.aws.calls(workspace).values()),
    )


def between(before: Cost, after: Cost) -> Cost:
    return Cost(
        events=after.events - before.events,
        actions=after.actions - before.actions,
        calls=after.calls - before.calls,
    )


def fits(measured: Cost, said: Cost) -> list[str]:
    """Differences from the table."""
    return [
        f"{what}: measured {number}, docs/cost.md says {written}"
        for what, number, written in (
            ("events", measured.events, said.events),
            ("actions", measured.actions, said.actions),
            ("calls", measured.calls, said.calls),
        )
        if not written * LESS - ROUNDING <= number <= written * MORE + ROUNDING
    ]


async def until_canary(console: Console, workspace: str, generation: int) -> None:
    """Wait until the box is online and has answered its canary, the last action that costs."""
    await console.until_phase(workspace, Phase.ONLINE, generation=generation)

    async def processing() -> set[object]:
        """The recorded generations; for a moment still the previous one."""
        record = await console.record(workspace)
        listed = record["conditions"]
        assert isinstance(listed, list)
        return {
            one["generation"]
            for one in listed
            if one["type"] == "Processing" and one["status"] in (True, "True", "true")
        }

    await eventually(processing, lambda seen: generation in seen)


async def test_a_generation_costs_what_the_table_says(console: Console, workspace: str) -> None:
    said = documented()
    nothing = Cost(events=0, actions=0, calls=0)
    await console.start(workspace)
    await until_canary(console, workspace, 1)
    first = await cost_so_far(console, workspace)
    await console.signal(workspace, requested_by="watchdog", observed_generation=1)
    await until_canary(console, workspace, 2)
    second = await cost_so_far(console, workspace)
    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.workflow(workspace).result()
    third = await cost_so_far(console, workspace)
    assert fits(between(nothing, first), said["a new workspace, until online"]) == []
    assert fits(between(first, second), said["a recreate, until online"]) == []
    assert fits(between(second, third), said["a deletion"]) == []


async def completed(console: Console, workflow_type: str) -> AsyncIterator[Cost]:
    async for one in console.client.list_workflows(
        f'WorkflowType = "{workflow_type}" AND ExecutionStatus = "Completed"', limit=3
    ):
        handle = console.client.get_workflow_handle(one.id, run_id=one.run_id)
        history = await handle.fetch_history()
        yield Cost(events=len(history.events), actions=SCHEDULED + actions_of(history.events), calls=0)


@pytest.mark.parametrize(
    ("workflow_type", "schedule_id", "row"),
    [
        ("WatchdogWorkflow", WATCHDOG_SCHEDULE, "a watchdog run, nothing wrong"),
        ("SweepWorkflow", SWEEP_SCHEDULE, "an orphan sweep, nothing found"),
        ("RepairWorkflow", REPAIR_SCHEDULE, "a repair run, nothing stuck"),
    ],
)
async def test_a_round_costs_what_the_table_says(
    console: Console, workflow_type: str, schedule_id: str, row: str
) -> None:
    schedule = console.client.get_schedule_handle(schedule_id)
    said = documented()[row]

    async def wrong() -> list[str]:
        await schedule.trigger()
        rounds = [one async for one in completed(console, workflow_type)]
        if not rounds:
            return ["no round is over"]
        cheapest = min(rounds, key=lambda one: one.events)
        return fits(Cost(events=cheapest.events, actions=cheapest.actions, calls=said.calls), said)

    # The first rounds also handle what other tests left behind, and cost more.
    assert await eventually(wrong, lambda seen: not seen) == []


async def beat_again(console: Console, workspace: str) -> None:
    """Wait for the box's next heartbeat."""

    async def last_beat() -> object:
        [row] = await console.rows(
            "SELECT last_heartbeat_at FROM heartbeats WHERE workspace_id = %s", workspace
        )
        return row["last_heartbeat_at"]

    before = await last_beat()
    await eventually(last_beat, lambda at: at != before)


async def test_a_healthy_workspace_costs_nothing(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await until_canary(console, workspace, 1)

    async def cost_of_three_beats() -> Cost:
        before = await cost_so_far(console, workspace)
        for _ in range(3):
            await beat_again(console, workspace)
        return between(before, await cost_so_far(console, workspace))

    # Writes about its start are still in progress.
    await eventually(cost_of_three_beats, lambda cost: cost == Cost(events=0, actions=0, calls=0))
