"""The control plane resets a run stuck on non-determinism; what a reset keeps."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.testing import ActivityEnvironment

from activities.repair.repair import Repair, count_resets
from devstack.console import Console, eventually
from devstack.processes import Child, free_port
from devstack.stack import Stack
from tests.resetting import ended_tasks, reset
from workers.history.divergence import find_divergence
from workers.history.replay_run import replay_run
from workers.temporal.activation_order import SINGLE_BATCH_FLAG
from workflows.repair.rules import RepairOutcome, StuckRun
from workflows.repair.workflow import RepairReport
from workflows.shared.encryption import Encryption, PayloadKeys
from workflows.shared.names import REPAIR_SCHEDULE, REPAIR_TYPE
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

ACCEPTED, JOINED, STALE = OutcomeKind.ACCEPTED, OutcomeKind.JOINED, OutcomeKind.STALE


@contextmanager
def another_worker(stack: Stack, log: Path) -> Iterator[None]:
    """Replaces the stack's worker by one with other code, which is killed at the end."""
    stack.stop("worker")
    binds = {name: f"127.0.0.1:{free_port()}" for name in ("WORKER_METRICS_BIND", "SDK_METRICS_BIND")}
    other = Child(
        "worker",
        [sys.executable, "-m", "tests.integration.other_code_worker"],
        log=log,
        environment=stack.environment | binds,
    )
    other.start()
    try:
        yield
    finally:
        other.kill()


async def outcomes(console: Console, workspace: str) -> dict[str, tuple[str, int]]:
    """The recorded requests with one of the test's IDs."""
    rows = await console.rows(
        "SELECT request_id, outcome, generation FROM requests WHERE workspace_id = %s", workspace
    )
    return {str(row["request_id"]): (str(row["outcome"]), int(str(row["generation"]))) for row in rows}


async def current_run(console: Console, workspace: str) -> str:
    return str((await console.workflow(workspace).describe()).run_id)


async def rescued(console: Console, run_id: str) -> tuple[RepairOutcome, str] | None:
    """The repair result of a run, if a round has met it; triggers another round."""
    await console.client.get_schedule_handle(REPAIR_SCHEDULE).trigger()
    query = f"WorkflowType = '{REPAIR_TYPE}' AND ExecutionStatus = 'Completed'"
    async for each in console.client.list_workflows(query, limit=20):
        handle = console.client.get_workflow_handle(each.id, run_id=each.run_id, result_type=RepairReport)
        for run in (await handle.result()).runs:
            if run.run_id == run_id:
                return run.outcome, run.why
    return None


@pytest.mark.slow
async def test_a_run_that_fails_every_replay_is_reset_and_nothing_is_lost(
    stack: Stack, console: Console, workspace: str, tmp_path: Path
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    stuck = await current_run(console, workspace)
    with another_worker(stack, tmp_path / "worker.log"):
        for generation, name in ((1, "second"), (2, "third")):
            await console.ask(
                workspace, requested_by="admin:alice", observed_generation=generation, request_id=name
            )
            await console.until_phase(workspace, Phase.ONLINE, generation=generation + 1)
        await console.ask(workspace, requested_by="admin:bob", observed_generation=1, request_id="late")
        before = await eventually(lambda: outcomes(console, workspace), lambda seen: len(seen) == 3)

    await console.signal(workspace, requested_by="watchdog", observed_generation=3, request_id="meanwhile")
    asking = asyncio.create_task(
        console.ask(workspace, requested_by="admin:carol", observed_generation=3, request_id="waiting")
    )
    stack.start("worker")
    told = await eventually(lambda: rescued(console, stuck), lambda seen: seen is not None)
    answer = await asking
    await console.until_phase(workspace, Phase.ONLINE, generation=3)

    assert await current_run(console, workspace) != stuck
    assert told is not None
    assert told[0] is RepairOutcome.RESET
    assert told[1].startswith("its replay diverges from the history at event ")
    # Decisions since then are kept; later requests are decided by the record.
    assert before == {"second": (ACCEPTED, 2), "third": (ACCEPTED, 3), "late": (STALE, 3)}
    now = await eventually(lambda: outcomes(console, workspace), lambda seen: len(seen) == 5)
    assert now == before | {"meanwhile": (JOINED, 3), "waiting": (JOINED, 3)}
    assert (answer.outcome, answer.generation) == (JOINED, 3)
    counts = console.aws.counts(workspace)
    assert (counts.launches, counts.max_alive_at_once, counts.dns_changes) == (3, 1, 3)

    # A late round must not end the run that replaced it.
    present = await current_run(console, workspace)
    late = ActivityEnvironment(client=console.client)
    rescue = Repair(find_divergence=partial(find_divergence, codec=Encryption(PayloadKeys.parse("")))).repair
    judged = await late.run(rescue, StuckRun(workflow_id=workspace, run_id=stuck))
    assert (judged.outcome, judged.why) == (
        RepairOutcome.RECOVERED,
        "another run replaced it, or it has ended",
    )
    assert await current_run(console, workspace) == present
    history = await console.workflow(workspace).fetch_history()
    assert count_resets(history.events) == 1
    assert (await replay_run(history)).failure is None


async def test_after_a_reset_by_a_human_the_record_is_read_before_anything_is_decided(
    console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    early = (await ended_tasks(console, workspace))[-1]
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1, request_id="second")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    before = await eventually(lambda: outcomes(console, workspace), lambda seen: len(seen) == 1)
    await reset(console, workspace, to=early)

    # Without reading the record, the stale rule would refer to generation 2.
    seen = await console.ask(workspace, requested_by="admin:bob", observed_generation=2, request_id="known")
    assert (seen.outcome, seen.generation) == (JOINED, 2)
    again = await console.ask(workspace, requested_by="admin:alice", request_id="second")
    assert (again.outcome, again.generation) == (ACCEPTED, 2)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    after = await eventually(lambda: outcomes(console, workspace), lambda seen: len(seen) == 2)
    assert after == before | {"known": (JOINED, 2)}
    assert console.aws.counts(workspace).launches == 2
    assert (await replay_run(await console.workflow(workspace).fetch_history())).failure is None


async def test_tasks_are_worked_on_with_all_that_they_bring_before_the_code_runs(
    console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    history = await console.workflow(workspace).fetch_history()
    completed = [
        each.workflow_task_completed_event_attributes
        for each in history.events
        if each.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    # The configuration of a run's first task holds for all of its tasks.
    assert SINGLE_BATCH_FLAG in completed[0].sdk_metadata.lang_used_flags
