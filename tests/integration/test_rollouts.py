"""Fleet rollouts on a separate stack: plan, canary, share, pause, resume, abort, and a report."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from devstack.aws.client import AwsEndpoint
from devstack.console import connected, eventually
from devstack.stack import Stack
from tests.integration.fleet import Fleet, boxless, inhabited
from tests.integration.rollouts import Rollout, Rolls, outcomes, told
from workflows.rollout import workflow
from workflows.rollout.messages import RolloutProgress
from workflows.rollout.rules import Outcome, RolloutState
from workflows.rollout.workflow import RolloutWorkflow
from workflows.shared.names import ROLLOUT_TYPE
from workflows.workspace.enums import Phase
from workflows.workspace.messages import WorkspaceSpec

UNKNOWN_IMAGE = "ami-00000000deadbeef0"

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

SETTINGS = {
    "CANARY": "off",
    "EC2_MUTATIONS_PER_SECOND": "100",
    "HEARTBEAT_STALE_SECONDS": "60",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Without box processes: these tests bring their own boxes."""
    with boxless(SETTINGS) as stack:
        yield stack


@pytest.fixture(scope="module")
async def fleet(stack: Stack) -> AsyncIterator[Fleet]:
    """Boxes of all tests, because silent boxes of an earlier test would pause the fleet."""
    with AwsEndpoint(stack.aws_url) as aws:
        async with inhabited(aws, stack.register_api_url) as fleet:
            yield fleet


@pytest.fixture
async def rolls(stack: Stack, fleet: Fleet) -> AsyncIterator[Rolls]:
    async with connected(stack) as console:
        yield Rolls(console=console, stack=stack, fleet=fleet)
        console.aws.clear()


async def test_a_plan_stands_and_touches_nothing_and_an_abort_leaves_it_so(rolls: Rolls) -> None:
    names = await rolls.online(3)
    _, image = rolls.images()
    rollout = await rolls.start(workspaces=names, image_id=image)
    plan = await rollout.until(RolloutState.PLANNED)
    assert [member.workspace_id for member in plan.members] == names
    assert (plan.allowed, plan.unavailable, plan.began_at) == (1, 0, None)
    assert f"first {names[0]} alone" in plan.why
    assert not (await rollout.order("resume")).taken
    assert (await rollout.order("abort", reason="a look was enough")).taken
    report = await rollout.handle.result()
    assert report.over
    assert "a look was enough" in report.why
    assert set(outcomes(report).values()) == {Outcome.WAITING}
    assert await rolls.generations(names) == dict.fromkeys(names, 1)
    rows = await rolls.console.rows(
        "SELECT DISTINCT rollout_image_id FROM workspaces WHERE workspace_id = ANY(%s)", names
    )
    assert rows == [{"rollout_image_id": None}]


async def test_an_image_stays_with_its_workspace_and_workspaces_that_have_it_are_skipped(
    rolls: Rolls,
) -> None:
    names = await rolls.online(3)
    old, new = rolls.images()
    assert await rolls.image_of(names[0]) == old
    rollout = await rolls.start(workspaces=names[:2], image_id=new, start=True)
    report = await rollout.handle.result()
    assert told(report.counts) == {"recreated": 2}
    assert [await rolls.image_of(name) for name in names] == [new, new, old]

    # The next box has it too: after a recreate, and after a workflow that enrolls again with its old spec.
    await rolls.console.ask(names[0], requested_by="admin:bob", observed_generation=2)
    await rolls.console.until_phase(names[0], Phase.ONLINE, generation=3)
    await rolls.console.workflow(names[1]).terminate()
    await rolls.console.start(names[1], WorkspaceSpec(register_deadline_seconds=300))
    await rolls.console.until_phase(names[1], Phase.ONLINE, generation=2)
    await rolls.console.ask(names[1], requested_by="admin:bob", observed_generation=2)
    await rolls.console.until_phase(names[1], Phase.ONLINE, generation=3)
    assert [await rolls.image_of(name) for name in names[:2]] == [new, new]

    again = await rolls.start(workspaces=names, image_id=new, start=True)
    report = await again.handle.result()
    assert told(report.counts) == {"recreated": 1, "unneeded": 2}
    assert await rolls.generations(names) == {names[0]: 3, names[1]: 3, names[2]: 2}


async def test_an_image_that_ec2_refuses_costs_the_canary_and_says_why(rolls: Rolls) -> None:
    names = await rolls.online(3)
    rollout = await rolls.start(workspaces=names, image_id=UNKNOWN_IMAGE, start=True)
    paused = await rollout.until(RolloutState.PAUSED)
    assert "canary" in paused.why
    canary = paused.members[0]
    assert (canary.workspace_id, canary.outcome) == (names[0], Outcome.FAILED)
    assert canary.detail.startswith("InvalidAMIID.NotFound: ")
    record = await rolls.console.record(names[0])
    assert record["phase"] == "recreating"  # EC2 may get the image yet
    assert "InvalidAMIID.NotFound" in str(record["last_error"])
    await rollout.order("abort")
    await rollout.handle.result()
    assert await rolls.generations(names[1:]) == dict.fromkeys(names[1:], 1)
    # The way back is a rollout with the previous image.
    back = await rolls.start(workspaces=names[:1], image_id=rolls.images()[0], start=True)
    assert told((await back.handle.result()).counts) == {"recreated": 1}


async def test_a_recreate_that_a_human_asked_for_goes_ahead_and_the_roll_counts_its_result(
    rolls: Rolls,
) -> None:
    [name] = await rolls.online(1)
    with rolls.on_its_way(name, 2):
        await rolls.console.ask(name, requested_by="admin:bob", observed_generation=1)
        rollout = await rolls.start(workspaces=[name], start=True)
        progress = await rollout.until_counts(in_flight=1)
        assert "in progress" in progress.members[0].detail
    report = await rollout.handle.result()
    assert told(report.counts) == {"recreated": 1}
    assert rolls.console.aws.counts(name).launches == 2
    [asked] = [it for it in await rolls.console.requests(name) if "(rollout " in it.requested_by]
    assert (asked.outcome, asked.requested_by) == ("joined", f"admin:alice (rollout {rollout.id})")


async def test_a_query_chooses_and_one_that_cannot_be_used_is_no_plan(rolls: Rolls) -> None:
    names = await rolls.online(3)
    ids = " OR ".join(f"WorkflowId = '{name}'" for name in names[1:])
    query = f"({ids}) AND WorkspacePhase = 'online'"

    async def listed() -> int:
        return (await rolls.console.client.count_workflows(query)).count

    await eventually(listed, lambda it: it == 2)  # a moment after the change
    rollout = await rolls.start(query=query)
    plan = await rollout.until(RolloutState.PLANNED)
    assert [member.workspace_id for member in plan.members] == names[1:]
    assert (await rollout.order("abort")).taken

    for request, words in (
        ({"query": "NoSuchAttribute = 1"}, "Temporal rejected the query"),
        ({"workspaces": [names[0], "ws-nobody"]}, "ws-nobody"),
        ({"query": f"({ids}) AND WorkspacePhase = 'stopped'"}, "no workspace matches"),
        ({"max_unavailable": 1.5}, "max_unavailable"),
        ({"workspaces": names, "query": "x = 1"}, "exclude each other"),
    ):
        rollout = await rolls.start(**request)
        with pytest.raises(WorkflowFailureError) as failed:
            await rollout.handle.result()
        assert words in str(failed.value.cause)


async def test_a_pause_lets_the_one_on_the_way_arrive_and_begins_no_other(rolls: Rolls) -> None:
    names = await rolls.online(3)
    with rolls.on_its_way(names[0], 2):
        rollout = await rolls.start(workspaces=names, start=True)
        await rollout.until_counts(in_flight=1)
        assert (await rollout.order("pause", reason="lunch")).taken
    paused = await rollout.until_counts(recreated=1, waiting=2)
    assert paused.state is RolloutState.PAUSED
    assert "lunch" in paused.why
    assert (await rollout.order("resume")).taken
    assert told((await rollout.handle.result()).counts) == {"recreated": 3}


async def test_a_cancellation_is_an_abort_and_leaves_a_report(rolls: Rolls) -> None:
    names = await rolls.online(2)
    with rolls.on_its_way(names[0], 2):
        rollout = await rolls.start(workspaces=names, start=True)
        await rollout.until_counts(in_flight=1)
        await rollout.handle.cancel()
        await rollout.until(RolloutState.ABORTED)
    report = await rollout.handle.result()
    assert outcomes(report) == {names[0]: Outcome.RECREATED, names[1]: Outcome.WAITING}


async def test_the_failed_get_another_turn_and_another_request(rolls: Rolls) -> None:
    names = await rolls.online(2)
    refused = rolls.console.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, times=None, workspace=names[0]
    )
    rollout = await rolls.start(workspaces=names, start=True)
    paused = await rollout.until(RolloutState.PAUSED)
    assert outcomes(paused)[names[0]] is Outcome.FAILED
    rolls.console.aws.release(refused)
    taken = await rollout.order("retry_failed")
    assert taken.taken
    assert taken.state is RolloutState.PAUSED
    await rollout.order("resume")
    assert told((await rollout.handle.result()).counts) == {"recreated": 2}
    asked = [it.request_id for it in await rolls.console.requests(names[0])]
    assert len(set(asked)) == 2


@pytest.mark.slow
async def test_a_killed_worker_and_a_run_that_is_continued_lose_and_repeat_nothing(
    rolls: Rolls, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = await rolls.online(4)
    monkeypatch.setattr(workflow, "ROUNDS_PER_RUN", 3)
    queue = "short-runs"
    async with Worker(
        rolls.console.client,
        task_queue=queue,
        workflows=[RolloutWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),  # it shares the constant of this process
    ):
        handle = await rolls.console.client.start_workflow(
            ROLLOUT_TYPE,
            {"workspaces": names, "max_unavailable": 2, "start": True, "requested_by": "admin:alice"},
            id="continued-rollout",
            task_queue=queue,
            result_type=RolloutProgress,
        )
        rollout = Rollout(id="continued-rollout", handle=handle)
        await eventually(rollout.progress, lambda it: told(it.counts).get("recreated", 0) >= 1)
        pid = rolls.stack.pids["worker"]
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(rolls.stack.wait_ready, "worker", other_than=pid)
        report = await handle.result()
    assert told(report.counts) == {"recreated": 4}
    assert report.began_at is not None
    assert await rolls.generations(names) == dict.fromkeys(names, 2)
    first = rolls.console.client.get_workflow_handle(
        "continued-rollout", run_id=handle.first_execution_run_id
    )
    assert (await first.describe()).status is not None
    assert (await rolls.console.client.get_workflow_handle("continued-rollout").describe()).run_id != (
        handle.first_execution_run_id
    )


@asynccontextmanager
async def observed(rolls: Rolls, prefix: str, members: int) -> AsyncIterator[list[int]]:
    """The maximum of unavailable members, polled from the record."""
    seen: list[int] = []
    over = asyncio.Event()

    async def look() -> None:
        while not over.is_set():  # not cancelled, because that would leak a connection that is being opened
            seen.append(members - len(await rolls.available(prefix)))
            await asyncio.sleep(0.02)

    rolls.fleet.watch(f"{prefix}-", members)
    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        over.set()
        await looking


@pytest.mark.storm
@pytest.mark.timeout(600)
async def test_fifty_workspaces_with_three_bad_boxes_pause_resume_and_end_with_a_report(rolls: Rolls) -> None:
    bad = (3, 5, 7)  # early: when the third of them fails, others still wait
    names = await rolls.online(50, impatient=bad)
    prefix = names[0].partition("-")[0]
    lost = {names[each] for each in bad}
    rolls.fleet.bad.update((name, generation) for name in lost for generation in range(2, 9))
    async with observed(rolls, prefix, 50) as unavailable:
        rollout = await rolls.start(workspaces=names, max_unavailable=0.1, max_failures=3)
        plan = await rollout.until(RolloutState.PLANNED)
        assert plan.allowed == 5
        assert unavailable[-1] == 0
        assert (await rollout.order("proceed")).taken

        paused = await rollout.until(RolloutState.PAUSED, seconds=300)
        assert paused.why.startswith("paused: 3 failed")
        assert {name for name, outcome in outcomes(paused).items() if outcome is Outcome.FAILED} == lost
        still = await eventually(rollout.progress, lambda it: "in_flight" not in told(it.counts))
        assert still.state is RolloutState.PAUSED
        waiting = [name for name, outcome in outcomes(still).items() if outcome is Outcome.WAITING]
        assert waiting
        assert await rolls.generations(waiting) == dict.fromkeys(waiting, 1), "a pause begins nothing"

        assert (await rollout.order("resume", reason="three are known to be broken")).taken
        report = await rollout.handle.result()

    assert max(unavailable) <= 5, "more were unavailable than allowed"
    assert max(unavailable) > 1, "a share at a time, not one by one"
    assert rolls.fleet.fewest[f"{prefix}-"] >= 45, "by EC2's word, too"
    assert len(unavailable) > 100
    assert report.over
    assert outcomes(report) == {name: Outcome.FAILED if name in lost else Outcome.RECREATED for name in names}
    assert told(report.counts) == {"recreated": 47, "failed": 3}
    for member in report.members:
        assert bool(member.detail) == (member.workspace_id in lost)
        if member.workspace_id in lost:
            assert "never called the register API" in member.detail
    generations = await rolls.generations(names)
    assert all(generations[name] == 2 for name in names if name not in lost)
    assert all(rolls.console.aws.counts(name).launches == 2 for name in names if name not in lost)
    history = await rollout.handle.fetch_history()
    assert len(history.events) < 2_000
