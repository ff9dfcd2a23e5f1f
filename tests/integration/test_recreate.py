"""Overlapping recreate requests on the whole stack: one launch, and an outcome for each request."""

import asyncio
from collections import Counter

import psutil
import pytest

from devstack.console import TIMEOUT_SECONDS, Console, call_with_retries, eventually
from devstack.stack import Stack
from tests.integration.fleet import going_on
from tests.integration.test_registering import REGISTER, box_of, calling, suspended, token_file
from tests.integration.wire import Wire
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

HEARTBEAT = "/registry/heartbeat"
BEAT_SECONDS = 0.5

SOURCES = ("watchdog", "auto-recovery", "admin:core-devops")
REQUESTS = 300


async def storm(console: Console, workspace: str, *, observed: int, round_: int) -> None:
    """300 requests from three sources: the programs send signals, the admin runs updates."""
    updates = asyncio.Semaphore(8)  # the server accepts ten at a time per workflow

    async def ask(number: int) -> None:
        source = SOURCES[number % 3]
        request = {"observed_generation": observed, "request_id": f"round-{round_}-{number}"}
        if source.startswith("admin"):
            async with updates:
                await console.ask(workspace, requested_by=source, **request)
        else:
            await console.signal(workspace, requested_by=source, **request)

    await asyncio.gather(*(ask(number) for number in range(REQUESTS)))


async def outcomes(console: Console, workspace: str, *, round_: int) -> Counter[str]:
    """The recorded outcomes of a round, once all exist."""

    async def look() -> Counter[str]:
        rows = await console.rows(
            "SELECT outcome FROM requests WHERE workspace_id = %s AND request_id LIKE %s",
            workspace,
            f"round-{round_}-%",
        )
        return Counter(str(row["outcome"]) for row in rows)

    return await eventually(look, lambda seen: seen.total() >= REQUESTS)


async def test_300_overlapping_requests_launch_one_box_and_the_same_300_later_launch_none(
    console: Console, wire: Wire, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)

    # The new box's calls are delayed until all have requested, so that the requests overlap.
    with wire.interfere(workspace, REGISTER, times=1000, delay=True):
        await storm(console, workspace, observed=1, round_=1)
        first = await outcomes(console, workspace, round_=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert first == Counter({OutcomeKind.ACCEPTED: 1, OutcomeKind.JOINED: 299})
    assert console.aws.counts(workspace).launches == 2

    await storm(console, workspace, observed=1, round_=2)
    second = await outcomes(console, workspace, round_=2)
    assert second == Counter({OutcomeKind.STALE: 300})
    counts = console.aws.counts(workspace)
    assert (counts.launches, counts.max_alive_at_once, counts.dns_changes) == (2, 1, 2)
    assert (await console.status(workspace)).generation == 2


async def test_a_bare_signal_recreates_and_outcomes_are_told(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.workflow(workspace).signal("recreate")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    [outcome] = await console.requests(workspace)
    assert (outcome.outcome, outcome.generation) == (OutcomeKind.ACCEPTED, 2)
    assert await console.live_tokens(workspace) == [{"generation": 2, "state": "active"}]


async def test_an_update_answers_at_once_and_a_repeated_request_id_gets_the_earlier_outcome(
    console: Console, wire: Wire, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    with wire.interfere(workspace, REGISTER, times=1000, delay=True):  # delays the new box
        first = await console.ask(workspace, requested_by="admin:alice", request_id="the-same")
        assert first.outcome is OutcomeKind.ACCEPTED
        assert (await console.status(workspace)).phase is not Phase.ONLINE  # it did not wait
        assert await console.ask(workspace, requested_by="admin:alice", request_id="the-same") == first
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert await console.ask(workspace, requested_by="admin:alice", request_id="the-same") == first


async def test_stop_start_and_delete_leave_nothing_behind(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.ask(workspace, "request_stop", requested_by="admin:alice", reason="holiday")
    await console.until_phase(workspace, Phase.STOPPED)
    assert console.aws.counts(workspace).alive_now == 0
    assert await console.live_tokens(workspace) == []
    rejected = await console.ask(workspace, requested_by="watchdog")
    assert rejected.outcome is OutcomeKind.REJECTED

    await console.ask(workspace, "request_start", requested_by="admin:alice")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)

    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.workflow(workspace).result()
    assert console.aws.counts(workspace).alive_now == 0
    assert await console.live_tokens(workspace) == []
    await eventually(lambda: console.record(workspace), lambda record: record.get("phase") == "deleted")


async def test_a_deleted_workspace_is_not_brought_back_by_a_late_signal_with_start(
    console: Console, workspace: str
) -> None:
    from temporalio.client import WorkflowFailureError

    from workflows.shared.names import TASK_QUEUE, WORKFLOW_TYPE

    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.workflow(workspace).result()
    launches = console.aws.counts(workspace).launches
    handle = await console.client.start_workflow(
        WORKFLOW_TYPE,
        {},
        id=workspace,
        task_queue=TASK_QUEUE,
        start_signal="recreate",
        start_signal_args=[{"requested_by": "watchdog", "request_id": "late"}],
    )
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert "was deleted" in str(failed.value.cause)
    assert console.aws.counts(workspace).launches == launches
    [late] = await console.rows(
        "SELECT outcome FROM requests WHERE workspace_id = %s AND request_id = 'late'", workspace
    )
    assert late["outcome"] == "rejected"


async def test_a_reset_to_the_beginning_reuses_no_generation_and_keeps_the_box(
    console: Console, workspace: str
) -> None:
    from temporalio.api.common.v1 import WorkflowExecution
    from temporalio.api.enums.v1 import EventType
    from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest

    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    before = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    history = await console.workflow(workspace).fetch_history()
    first_task = next(
        event.event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    )
    await console.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=console.client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workspace, run_id=history.run_id),
            reason="test",
            workflow_task_finish_event_id=first_task,
            request_id="reset",
        )
    )
    after = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert after.instance_id == before.instance_id
    assert console.aws.counts(workspace).launches == 2
    rows = await console.rows("SELECT generation FROM generations WHERE workspace_id = %s", workspace)
    assert len(rows) == 2


async def test_a_cancellation_does_nothing_and_is_seen(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.workflow(workspace).cancel()
    [seen] = await eventually(lambda: console.requests(workspace), lambda requests: len(requests) == 1)
    assert seen.outcome is OutcomeKind.REJECTED
    await console.ask(workspace, requested_by="admin:alice")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)


async def test_a_box_is_given_up_while_its_agent_still_thinks_about_the_canary(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    # All of its heartbeats, because it retries after a timeout.
    with wire.interfere(workspace, HEARTBEAT, times=1000, delay=True) as held:
        await console.start(workspace)
        assert await asyncio.to_thread(held.caught.wait, TIMEOUT_SECONDS)
        box = await box_of(stack, workspace)
        token = token_file(box).read_text().strip()
        script = psutil.Process(box.pid)
        # Its heartbeat is in progress, and it answers nothing else.
        await suspended(script, *script.children(recursive=True))

    async def beat() -> None:
        """Send heartbeats in its name, like an agent that is busy but not silent."""
        async with calling(stack, token) as http:
            while True:
                await call_with_retries(http, "POST", HEARTBEAT, {"workspace_id": workspace})
                await asyncio.sleep(BEAT_SECONDS)

    async with going_on(beat()):
        asking = await eventually(
            lambda: console.status(workspace),
            lambda status: "sending the agent a canary" in status.waiting_for,
        )
        assert asking.phase is Phase.AWAITING_REGISTRATION
        outcome = await console.ask(workspace, requested_by="admin:alice", observed_generation=1, force=True)
        assert outcome.outcome is OutcomeKind.ACCEPTED
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert console.aws.counts(workspace).max_unterminated_at_once == 1
