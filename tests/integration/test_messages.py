"""Valid and malformed payloads, and streams of them across continue-as-new: none blocks, none is lost."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError, WorkflowHistory
from temporalio.common import RawValue
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from devstack.console import Console, eventually
from devstack.stack import Stack
from workflows.shared.names import TASK_QUEUE, WORKFLOW_TYPE
from workflows.workspace import status as workspace_status
from workflows.workspace.enums import CanaryPolicy, Phase, Step
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.requests import OutcomeKind
from workflows.workspace.state import State
from workflows.workspace.workflow import MESSAGES_PER_RUN, WorkspaceWorkflow

pytestmark = pytest.mark.anyio

TASK_SECONDS = 2.0
"""The SDK reports a deadlock for a task that takes longer."""

REPLAYS = 10

UNREADABLE = RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"\xff{not json"))
UNKNOWN_ENCODING = RawValue(Payload(metadata={"encoding": b"application/x-unheard-of"}, data=b"x"))


def failed_tasks(history: WorkflowHistory) -> list[str]:
    """Why tasks of the run failed.

    The SDK reports a deadlock if the machine stalls for two seconds; the next attempt succeeds. A task
    that never succeeds shows by its missing effects.
    """
    failures = [
        event.workflow_task_failed_event_attributes
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
    ]
    messages = [f"{failure.cause}: {failure.failure.message}" for failure in failures]
    return [message for message in messages if "deadlock" not in message]


async def computed_seconds(console: Console, history: WorkflowHistory) -> float:
    """Thread CPU time of all tasks of the run; a stall does not add to it.

    A replay that exceeds the task timeout is repeated; one that always does fails.
    """
    failures: list[str] = []
    while len(failures) < REPLAYS:
        with ThreadPoolExecutor(1) as thread:
            replayer = Replayer(
                workflows=[WorkspaceWorkflow],
                data_converter=console.client.data_converter,
                workflow_task_executor=thread,
            )
            result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
            if result.replay_failure is None:
                return thread.submit(time.thread_time).result()
        failures.append(str(result.replay_failure))
        assert "TMPRL1101" in failures[-1]
    raise AssertionError(failures[-1])


async def test_malformed_payloads_are_rejected_and_block_nothing(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    handle = console.workflow(workspace)
    wrong: list[list[object]] = [
        [7],
        ["text"],
        [[1, 2]],
        [{"observed_generation": "one"}],
        [{"observed_generation": -1}],
        [{"observed_genration": 1}],
        [{"reason": "x" * 5000}],
        [{}, {}],
        [{"x" * 100_000: 1}],
        [UNREADABLE],
        [UNKNOWN_ENCODING],
    ]
    for arguments in wrong:
        await handle.signal("recreate", args=arguments)
    await handle.signal("recreate_now", {"requested_by": "typo"})
    await handle.signal("box_changed", {"kind": "dancing"})
    await handle.signal("box_changed", {"kind": "stale", "generation": 1, "at": "2026-11-24T00:00:00"})
    answered = await console.ask(workspace, observed_generation="one")
    assert answered.outcome is OutcomeKind.REJECTED
    assert "observed_generation" in answered.detail
    requests = await eventually(lambda: console.requests(workspace), lambda seen: len(seen) == 15)
    assert {request.outcome for request in requests} == {OutcomeKind.REJECTED}
    await console.until_phase(workspace, Phase.ONLINE)
    assert console.aws.counts(workspace).launches == 1
    assert failed_tasks(await handle.fetch_history()) == []


@pytest.mark.parametrize("workspace_id", ["WS_1", "-ws", "a" * 64, "ws.1"])
async def test_an_id_that_is_no_dns_label_fails_at_once_and_leaves_nothing(
    console: Console, workspace_id: str
) -> None:
    await console.start(workspace_id)
    with pytest.raises(WorkflowFailureError) as failed:
        await console.workflow(workspace_id).result()
    assert "DNS label" in str(failed.value.cause)
    assert await console.rows("SELECT 1 FROM workspaces WHERE workspace_id = %s", workspace_id) == []


@pytest.mark.parametrize(
    "spec", [5, {"carried": {}, "spec": {}}, {"image": "ami-1"}, {"register_deadline_seconds": -1}]
)
async def test_a_spec_that_cannot_be_read_fails_at_once_and_names_the_member(
    console: Console, workspace: str, spec: object
) -> None:
    handle = await console.client.start_workflow(WORKFLOW_TYPE, spec, id=workspace, task_queue=TASK_QUEUE)
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert any(
        word in str(failed.value.cause)
        for word in ("payload", "carried", "image", "register_deadline_seconds")
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [("UnauthorizedOperation", 403), ("VcpuLimitExceeded", 400), ("InvalidGroup.NotFound", 400)],
)
async def test_a_launch_that_aws_refuses_is_retried_and_comes_online_by_itself(
    console: Console, workspace: str, code: str, status: int
) -> None:
    refused = console.aws.inject(
        "RunInstances", "error", code=code, status=status, times=None, workspace=workspace
    )
    await console.start(workspace)
    seen = await eventually(lambda: console.status(workspace), lambda it: it.last_error is not None)
    assert seen.phase is Phase.PROVISIONING
    assert seen.last_error is not None
    assert (seen.last_error.code, seen.last_error.retryable) == (code, True)
    assert "retried automatically" in seen.last_error.hint
    record = await eventually(
        lambda: console.record(workspace), lambda record: record["last_error"] is not None
    )
    assert record["phase"] == "provisioning"
    console.aws.release(refused)
    online = await console.until_phase(workspace, Phase.ONLINE, generation=1)
    assert online.last_error is None
    assert console.aws.counts(workspace).launches == 1


@pytest.mark.parametrize("kind", ["request_stop", "request_delete"])
async def test_a_workspace_whose_launch_is_refused_stops_and_is_deleted(
    console: Console, workspace: str, kind: str
) -> None:
    await console.start(workspace, WorkspaceSpec(image_id="ami-00000000deadbeef0"))
    await eventually(lambda: console.status(workspace), lambda it: it.last_error is not None)
    assert (await console.ask(workspace, kind, requested_by="admin:alice")).outcome is OutcomeKind.ACCEPTED
    await console.until_phase(workspace, Phase.STOPPED if kind == "request_stop" else Phase.DELETED)


async def test_an_operators_force_gives_up_a_refused_launch(console: Console, workspace: str) -> None:
    refused = console.aws.inject(
        "RunInstances", "error", code="InvalidSubnetID.NotFound", status=400, times=None, workspace=workspace
    )
    await console.start(workspace)
    await eventually(lambda: console.status(workspace), lambda it: it.last_error is not None)
    outcome = await console.ask(workspace, requested_by="admin:alice", observed_generation=1, force=True)
    assert outcome.outcome is OutcomeKind.ACCEPTED
    console.aws.release(refused)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert console.aws.counts(workspace).launches == 1


async def test_a_request_that_can_never_pass_halts_without_a_storm(console: Console, workspace: str) -> None:
    console.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, times=None, workspace=workspace
    )
    await console.start(workspace)
    status = await console.until_phase(workspace, Phase.FAILED)
    assert status.last_error is not None
    assert status.last_error.code == "InvalidParameterValue"
    assert not status.last_error.retryable
    assert status.last_error.hint
    record = await eventually(
        lambda: console.record(workspace), lambda record: record["last_error"] is not None
    )
    assert record["phase"] == "failed"
    tried = [entry for entry in console.aws.journal(workspace=workspace) if entry.action == "RunInstances"]
    assert len(tried) <= 2
    assert console.aws.counts(workspace).alive_now == 0


async def test_a_storm_that_waited_for_the_worker_is_one_task_and_one_recreate(
    stack: Stack, console: Console, workspace: str
) -> None:
    """The SDK allows a task two seconds; a run that takes longer may block its worker permanently."""
    storm, sending = 800, asyncio.Semaphore(30)
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    stack.stop("worker")

    async def signal(number: int) -> None:
        async with sending:
            await console.signal(
                workspace, request_id=f"s{number}", requested_by="watchdog", observed_generation=1
            )

    await asyncio.gather(*map(signal, range(storm)))
    stack.start("worker")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)

    async def recorded() -> Counter[str]:
        rows = await console.rows("SELECT outcome FROM requests WHERE workspace_id = %s", workspace)
        return Counter(str(row["outcome"]) for row in rows)

    seen = await eventually(recorded, lambda counted: counted.total() >= storm)
    assert seen == Counter({"accepted": 1, "joined": storm - 1})
    assert console.aws.counts(workspace).launches == 2
    history = await console.workflow(workspace).fetch_history()
    # Not by failed tasks: a stall of two seconds causes one, too.
    assert await computed_seconds(console, history) < TASK_SECONDS


async def test_signals_that_waited_for_the_worker_are_shown_together(
    stack: Stack, console: Console, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow task is retried together with all later signals, so each must be cheap."""
    signals, sending = 300, asyncio.Semaphore(30)
    await console.start(workspace, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(workspace, Phase.ONLINE)
    stack.stop("worker")

    async def signal(number: int) -> None:
        async with sending:
            await console.signal(workspace, request_id=f"s{number}", observed_generation=0)

    await asyncio.gather(*map(signal, range(signals)))
    stack.start("worker")

    async def recorded() -> int:
        return len(await console.rows("SELECT FROM requests WHERE workspace_id = %s", workspace))

    await eventually(recorded, lambda counted: counted == signals)
    shown: list[str] = []

    def details(state: State, running: Step | None, at: datetime) -> str:
        shown.append(f"{len(state.requests)} requests, {running}, {at}")
        return shown[-1]

    monkeypatch.setattr(workspace_status, "details", details)
    replayer = Replayer(
        workflows=[WorkspaceWorkflow],
        data_converter=console.client.data_converter,
        workflow_runner=UnsandboxedWorkflowRunner(),
        debug_mode=True,
    )
    await replayer.replay_workflow(await console.workflow(workspace).fetch_history())
    assert 0 < len(shown) < signals // 3


@pytest.mark.timeout(700)
async def test_requests_survive_a_stream_across_runs(console: Console, workspace: str) -> None:
    """More messages than fit into a run, signals mixed with updates: every one has its outcome."""
    signals, updates = MESSAGES_PER_RUN + 300, 60
    await console.start(workspace, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(workspace, Phase.ONLINE)
    first_run = (await console.workflow(workspace).describe()).run_id
    signalling, updating = (
        asyncio.Semaphore(30),
        asyncio.Semaphore(8),
    )  # the server accepts ten updates at once

    async def signal(number: int) -> None:
        async with signalling:
            await console.signal(workspace, request_id=f"s{number}", observed_generation=0)

    async def update(number: int) -> None:
        async with updating:
            answer = await console.ask(workspace, request_id=f"u{number}", observed_generation=0)
            assert answer.outcome is OutcomeKind.STALE

    await asyncio.gather(*map(signal, range(signals)), *map(update, range(updates)))

    async def recorded() -> Counter[str]:
        rows = await console.rows("SELECT outcome FROM requests WHERE workspace_id = %s", workspace)
        return Counter(str(row["outcome"]) for row in rows)

    seen = await eventually(recorded, lambda counted: counted.total() >= signals + updates, seconds=240)
    assert seen == Counter({"stale": signals + updates})
    assert (await console.workflow(workspace).describe()).run_id != first_run
    assert console.aws.counts(workspace).launches == 1
