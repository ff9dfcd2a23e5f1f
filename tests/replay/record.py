"""Records histories of the paths that a workspace can take, from a running stack.

`python -m tests.replay.record` writes what is not recorded yet; recorded ones are of the code of their time,
and stay.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from temporalio.client import ScheduleActionExecutionStartWorkflow

from devstack.console import Console, connected, eventually
from devstack.stack import Stack
from tests.integration.planting import Planting, lost, one_pass
from tests.resetting import ended_tasks, reset
from tests.stacks import hurried
from workflows.delegation.messages import workflow_id_of
from workflows.rollout.messages import RolloutProgress
from workflows.rollout.rules import RolloutState
from workflows.shared.names import REPAIR_SCHEDULE, ROLLOUT_TYPE, SWEEP_SCHEDULE, TASK_QUEUE
from workflows.workspace.enums import CanaryPolicy, Phase, SnapshotPolicy
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.workflow import MESSAGES_PER_RUN

HISTORIES = Path(__file__).parent / "histories"
REQUESTERS = ("watchdog", "auto-recovery", "admin:core-devops")


async def incident(console: Console, stack: Stack) -> None:
    """Three requests within a second, and the same three again."""
    name = "incident"
    await console.start(name)
    await console.until_phase(name, Phase.ONLINE)
    await console.set_box_mode(name, "silent")
    await console.until_phase(name, Phase.DEGRADED)
    for _ in range(2):
        for requester in REQUESTERS:
            await console.signal(name, requested_by=requester, observed_generation=1)
        await console.until_phase(name, Phase.ONLINE, generation=2)
    await recorded(console, name, requests=6)


async def recorded(console: Console, name: str, *, requests: int) -> None:
    """Wait until PostgreSQL has all outcomes: then the history has them too."""
    query = "SELECT request_id FROM requests WHERE workspace_id = %s"
    await eventually(lambda: console.rows(query, name), lambda rows: len(rows) == requests)


async def intents(console: Console, stack: Stack) -> None:
    """Stopped, started and deleted."""
    name = "intents"
    await console.start(name)
    await console.until_phase(name, Phase.ONLINE)
    for update, phase in (("request_stop", Phase.STOPPED), ("request_start", Phase.ONLINE)):
        await console.ask(name, update, requested_by="admin:alice")
        await console.until_phase(name, phase)
    await console.ask(name, "request_delete", requested_by="admin:alice")
    await console.workflow(name).result()


async def refused(console: Console, stack: Stack) -> None:
    """A launch that AWS rejects for good; malformed and unknown messages; a cancellation."""
    name = "refused"
    console.aws.inject("RunInstances", "error", code="InvalidParameterValue", status=400, workspace=name)
    await console.start(name)
    await console.until_phase(name, Phase.FAILED)
    await console.signal(name, observed_generation="one")
    await console.signal(name, "recreate_now")
    await console.workflow(name).cancel()
    await recorded(console, name, requests=3)


async def troubled(console: Console, stack: Stack) -> None:
    """A lost answer, no capacity, throttling; a freeze that defers a program and not an admin."""
    name = "troubled"
    subnets = tuple(console.aws.info().subnet_ids[:2])
    console.aws.inject("RunInstances", "error", code="InsufficientInstanceCapacity", workspace=name)
    console.aws.inject("ChangeResourceRecordSets", "error", code="Throttling", workspace=name)
    await console.start(name, WorkspaceSpec(subnet_ids=subnets))
    await console.until_phase(name, Phase.ONLINE)
    console.aws.inject("RunInstances", "lost_answer", workspace=name)
    await console.signal(name, "freeze", seconds=60, reason="a look")
    await console.signal(name, requested_by="watchdog")
    await console.ask(name, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(name, Phase.ONLINE, generation=2)


async def continued(console: Console, stack: Stack) -> None:
    """More signals than a run takes."""
    name = "continued"
    await console.start(name, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(name, Phase.ONLINE)
    first = (await console.workflow(name).describe()).run_id
    for _ in range(MESSAGES_PER_RUN):
        await console.signal(name, observed_generation=0)

    async def run_id() -> str:
        return str((await console.workflow(name).describe()).run_id)

    await eventually(run_id, lambda seen: seen != first)
    await console.ask(name, requested_by="admin:alice")
    await console.until_phase(name, Phase.ONLINE, generation=2)


async def unregistered(console: Console, stack: Stack) -> None:
    """Boxes that miss their deadline, a late registration, a lost credential, a superseded box that calls."""
    name = "unregistered"
    stack.stop("boxes")
    await console.start(name, WorkspaceSpec(register_deadline_seconds=0.5, canary=CanaryPolicy.OFF))
    await console.until_phase(name, Phase.FAILED, generation=2)
    stack.start("boxes")
    await console.until_phase(name, Phase.ONLINE, generation=2)
    for kind, phase in (("credential_lost", Phase.DEGRADED), ("alive", Phase.ONLINE)):
        await _told(console, name, kind, generation=2)
        await console.until_phase(name, phase)
    await _told(console, name, "superseded_call", generation=1)

    async def events() -> str:
        return (await console.workflow(name).fetch_history()).to_json()

    await eventually(events, lambda told: "evict-2" in told)


async def delegated(console: Console, stack: Stack) -> str:
    """A delegation that is delivered to a dead agent, queued again for the next box, given up by an admin."""
    source, target = "delegating", "delegated"
    for name in (source, target):
        await console.start(name, WorkspaceSpec(canary=CanaryPolicy.OFF))
        await console.until_phase(name, Phase.ONLINE)
        await eventually(partial(console.record, name), lambda it: bool(it["url"]))
    await console.set_box_mode(target, "braindead")
    answer = await console.http.post(
        f"/workspaces/{source}/delegate", json={"target_id": target, "task": "count the sheep"}
    )
    delegation = str(answer.json()["delegation_id"])
    await eventually(partial(console.record, target), lambda it: "delivered" in str(it["work"]))
    # Replaced before it acknowledged: queued again, for the next box.
    await console.ask(target, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(target, Phase.RECREATING)
    await eventually(partial(console.record, target), lambda it: "queued" in str(it["work"]))
    workflow_id = workflow_id_of(delegation)
    await console.workflow(workflow_id).signal("give_up", {"requested_by": "admin:alice"})
    await console.workflow(workflow_id).result()
    return workflow_id


async def volume(console: Console, stack: Stack) -> None:
    """A data volume: snapshots taken and refused, an attachment tried again, a stop, a start, a deletion."""
    name = "volume"
    await console.start(
        name, WorkspaceSpec(data_volume=DataVolume(size_gib=1), snapshot=SnapshotPolicy.RECREATE)
    )
    await console.until_phase(name, Phase.ONLINE)
    console.aws.inject(
        "CreateSnapshot", "error", code="SnapshotCreationPerVolumeRateExceeded", status=400, workspace=name
    )
    console.aws.inject("AttachVolume", "lost_answer", workspace=name)
    await console.ask(name, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(name, Phase.ONLINE, generation=2)
    await console.ask(name, "request_stop", requested_by="admin:alice")
    await console.until_phase(name, Phase.STOPPED)
    await console.ask(name, "request_start", requested_by="admin:alice")
    await console.until_phase(name, Phase.ONLINE, generation=3)
    await console.ask(name, "request_delete", requested_by="admin:alice")
    await console.workflow(name).result()


async def orphaned(console: Console, stack: Stack) -> None:
    """Orphan instances that the workflow terminates, and a launch with a lost answer that it adopts."""
    name = "orphaned"
    await lost(console, name)
    await Planting(stack=stack, console=console).plant(name, generation=None)
    for _ in range(2):
        await one_pass(console)
    await console.until_phase(name, Phase.ONLINE)

    async def alive() -> int:
        return sum(it.state == "running" for it in console.aws.instances(name))

    await eventually(alive, lambda number: number == 1)


async def swept(console: Console, stack: Stack) -> str:
    """A pass of the orphan sweep that ends an instance of a workspace that nobody knows."""
    await console.start("swept")
    await console.until_phase("swept", Phase.ONLINE)
    await Planting(stack=stack, console=console).plant("nobody")
    await one_pass(console)
    report = await one_pass(console)
    assert len(report.ended) == 1
    recent = (await console.client.get_schedule_handle(SWEEP_SCHEDULE).describe()).info.recent_actions
    action = recent[-1].action
    assert isinstance(action, ScheduleActionExecutionStartWorkflow)
    return action.workflow_id


async def rolled(console: Console, stack: Stack) -> str:
    """A fleet rollout: planned, begun, paused by a failure, resumed with another turn for the failed."""
    names, rollout = ("rolled-a", "rolled-b", "rolled-c"), "fleet-rollout"
    for name in names:
        await console.start(name, WorkspaceSpec(canary=CanaryPolicy.OFF))
        await console.until_phase(name, Phase.ONLINE)
    denied = console.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, times=None, workspace=names[1]
    )
    handle = await console.client.start_workflow(
        ROLLOUT_TYPE,
        {"workspaces": names, "max_failures": 1, "requested_by": "admin:alice"},
        id=rollout,
        task_queue=TASK_QUEUE,
    )

    async def state() -> RolloutState | None:
        progress: RolloutProgress = await handle.query("progress", result_type=RolloutProgress)
        return progress.state

    for seen, orders in (
        (RolloutState.PLANNED, ("resume", "proceed")),
        (RolloutState.PAUSED, ("retry_failed", "resume")),
    ):
        await eventually(state, lambda it, seen=seen: it is seen)  # type: ignore[misc]
        if seen is RolloutState.PAUSED:
            console.aws.release(denied)
        for order in orders:
            await handle.execute_update(order, {"requested_by": "admin:alice"})
    await handle.result()
    return rollout


async def _told(console: Console, name: str, kind: str, *, generation: int) -> None:
    """As the register API would tell it."""
    await console.rows(
        "INSERT INTO workspace_outbox (workspace_id, generation, kind) VALUES (%s, %s, %s) RETURNING 1",
        name,
        generation,
        kind,
    )


async def explained(console: Console, stack: Stack) -> None:
    """Degraded, and stuck with a box that cannot be confirmed dead: the reason and the memo change alone."""
    name = "explained"
    await console.start(name, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(name, Phase.ONLINE)
    await console.set_box_mode(name, "silent")
    await console.until_phase(name, Phase.DEGRADED)
    [box] = [view for view in stack.boxes if view.workspace == name]
    os.killpg(box.pid, signal.SIGSTOP)  # it does not even end itself
    console.aws.inject(
        "TerminateInstances", "error", code="InternalError", status=500, times=None, workspace=name
    )
    await console.ask(name, requested_by="admin:alice", observed_generation=1)

    async def listed() -> int:
        return (await console.client.count_workflows('WorkspaceReason = "FenceUnconfirmed"')).count

    await eventually(listed, lambda number: number == 1, seconds=120)
    console.aws.clear()
    await console.until_phase(name, Phase.ONLINE, generation=2, seconds=120)


async def reset_back(console: Console, stack: Stack) -> str:
    """Reset to before its second box: the record is read, and knows the request that comes again."""
    name = "reset-back"
    await console.start(name)
    await console.until_phase(name, Phase.ONLINE)
    early = (await ended_tasks(console, name))[-1]
    await console.ask(name, requested_by="admin:alice", observed_generation=1, request_id="second")
    await console.until_phase(name, Phase.ONLINE, generation=2)
    await reset(console, name, to=early)
    await console.signal(name, requested_by="watchdog", observed_generation=2)
    await eventually(lambda: console.requests(name), lambda requests: len(requests) == 2)
    await recorded(console, name, requests=2)
    return name


async def rescued(console: Console, stack: Stack) -> str:
    """A round of the rescue that finds nothing."""
    schedule = console.client.get_schedule_handle(REPAIR_SCHEDULE)
    await schedule.trigger()

    async def run() -> str | None:
        for action in (await schedule.describe()).info.recent_actions:
            if isinstance(action.action, ScheduleActionExecutionStartWorkflow):
                return action.action.workflow_id
        return None

    name = await eventually(run, bool)
    assert name is not None
    await console.workflow(name).result()
    return name


PATHS: dict[str, Callable[[Console, Stack], Awaitable[str | None]]] = {
    path.__name__: path
    for path in (
        *(incident, intents, refused, troubled, continued, unregistered, delegated, volume),
        *(orphaned, swept, rolled, explained, reset_back, rescued),
    )
}


def without_stack_traces(part: object) -> object:
    """A history without what names the files of the machine that it was recorded on."""
    if isinstance(part, dict):
        return {name: without_stack_traces(value) for name, value in part.items() if name != "stackTrace"}
    if isinstance(part, list):
        return [without_stack_traces(item) for item in part]
    return part


async def _record(stack: Stack) -> None:
    async with connected(stack) as console:
        for name, path in PATHS.items():
            file = HISTORIES / f"{name}.json"
            if file.exists():
                continue
            workflow_id = await path(console, stack) or name
            history = await console.workflow(workflow_id).fetch_history()
            told = without_stack_traces(history.to_json_dict())
            file.write_text(json.dumps(told, separators=(",", ":")) + "\n")
            sys.stdout.write(f"recorded {name}: {len(history.events)} events\n")


def main() -> None:
    """Record what is missing."""
    settings = {
        "HEARTBEAT_SECONDS": "0.3",
        "HEARTBEAT_STALE_SECONDS": "3",
        "ORPHAN_MIN_AGE_SECONDS": "0.2",
        "FENCE_UNCONFIRMED_SECONDS": "1",
    }
    with hurried(settings) as stack:
        asyncio.run(_record(stack))


if __name__ == "__main__":
    main()
