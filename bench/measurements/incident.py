"""The incident and a schedule of faults, with Onebox and the alternative designs side by side.

The results come from the AWS endpoint, the boxes and the recorded outcomes.
"""

import asyncio
import time

from bench.baselines.contenders import ADMIN, ControlPlane, running_control_planes
from bench.baselines.fault_schedule import ALONE, LATE_LIST_SECONDS, SIDE_BY_SIDE, SLOW_SECONDS, Fault
from bench.parts import events
from bench.parts.results import Result
from bench.parts.size import Size
from bench.parts.stage import LOOK_SECONDS, SETTLE_SECONDS, Stage
from bench.report.incident_outcomes import MONTH_SECONDS, ControlPlaneResult, WorkspaceResult, result_of
from devstack.console import Console, connected
from devstack.processes import LOCALHOST, free_port
from devstack.stack import Stack

REQUESTERS = ("watchdog", "auto-recovery", ADMIN)
"""The requesters of the incident, all within a second."""

COUNTED_SECONDS = 6.0
"""How long heartbeat events are counted."""

ROUNDS = (("WatchdogWorkflow", 30), ("SweepWorkflow", 120), ("RepairWorkflow", 120))
"""The product's default intervals of fleet rounds, in seconds; for a month's actions."""

SCHEDULED_ACTIONS = 2
"""Of starting a schedule's workflow, in addition to the workflow's own."""

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "6",
    "ONEBOX_WATCH_SECONDS": "1",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "5",
    "REPAIR_INTERVAL_SECONDS": "5",
    "WATCHDOG_INTERVAL_SECONDS": "5",
    # Half of this fleet is silent at once because of the schedule, not because of an outage.
    "FLEET_FREEZE_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_PERCENT": "100",
}
"""Faster heartbeats and detection than in the field; the decisions are the same."""


def run(size: Size) -> Result:
    """Run the benchmark."""
    port = free_port()
    settings = SETTINGS | {"REGISTER_API_URL": f"http://{LOCALHOST}:{port}"}
    with Stack(
        free_ports=True, fsync=True, settings=settings, pending_seconds=0.3, terminating_seconds=0.5
    ) as stack:
        results, rounds_cost = asyncio.run(_played(size, stack, port))
    faults = [each.name for each in (*SIDE_BY_SIDE, ALONE)]
    return result_of(results, faults=faults, work=_work(size), rounds_cost=rounds_cost)


def _work(size: Size) -> str:
    return (
        "A workspace's box goes silent. Watchdog, auto-recovery and an admin request its "
        "restart within a second, and again when it is over. The incident runs once without "
        "further faults, and once under each fault of the schedule: EC2 takes "
        f"{SLOW_SECONDS:g} s longer to terminate the old instance; the response to the new "
        "box's register call is lost; the same for a fresh workspace, without any request; "
        "the launching process is killed while RunInstances takes effect, and EC2 omits the "
        f"launch from listings for {LATE_LIST_SECONDS:g} s. {size.fault_rounds} round(s), "
        "each with new workspaces. Boxes are processes with the same unmodified runtime, for "
        "which a 401 to its register call is final."
    )


async def _played(size: Size, stack: Stack, port: int) -> tuple[dict[str, ControlPlaneResult], float]:
    async with (
        connected(stack) as console,
        running_control_planes(stack, console, box_port=port) as contenders,
    ):
        stage = Stage(stack, console)
        results = {each.name: ControlPlaneResult() for each in contenders}
        for number in range(size.fault_rounds):
            faults = [(fault, f"{number}-{index}") for index, fault in enumerate(SIDE_BY_SIDE)]
            await asyncio.gather(
                *(
                    _run_workspace(
                        stage, contender, results[contender.name], fault, f"{_short_name(contender)}-{suffix}"
                    )
                    for contender in contenders
                    for fault, suffix in faults
                )
            )
            await asyncio.gather(
                *(
                    _run_workspace(
                        stage,
                        contender,
                        results[contender.name],
                        ALONE,
                        f"{_short_name(contender)}-{number}-crash",
                    )
                    for contender in contenders
                )
            )
        await asyncio.gather(
            *(
                _count_heartbeats(
                    stage, contender, results[contender.name], f"{_short_name(contender)}-healthy"
                )
                for contender in contenders
            )
        )
        return results, await _month_of_rounds(console)


async def _run_workspace(
    stage: Stage, control_plane: ControlPlane, result: ControlPlaneResult, fault: Fault, workspace_id: str
) -> None:
    """Run one workspace through the incident."""
    aws, request_ids = stage.console.aws, [f"{workspace_id}-{by}" for by in REQUESTERS]
    if fault.fresh:
        result.seen.setdefault(fault.name, []).append(
            await _run_first_minute(stage, control_plane, fault, workspace_id)
        )
        return
    await control_plane.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    if await stage.until_serving(workspace_id) is None:
        raise AssertionError(f"{control_plane.name}: {workspace_id} never came up")
    [first] = stage.boxes(workspace_id)
    await stage.watched(first, "silent")
    await fault.before(stage, control_plane, workspace_id)
    began = time.monotonic()
    meanwhile = asyncio.create_task(fault.meanwhile(stage, control_plane, workspace_id))
    await asyncio.gather(
        *(
            control_plane.ask(workspace_id, by=by, request_id=request_id)
            for by, request_id in zip(REQUESTERS, request_ids, strict=True)
        )
    )
    await meanwhile
    await _wait_until_answered(control_plane, workspace_id, request_ids)
    asked_for = time.monotonic() - began
    served = await stage.until_serving(workspace_id, first.instance_id)
    unauthorized = (await stage.statuses(workspace_id)).count(401)
    for each in aws.faults():
        if each.fault.workspace == workspace_id:
            aws.release(each.id)
    before_late = aws.counts(workspace_id).launches
    late = [f"{request_id}-late" for request_id in request_ids]
    for by, request_id in zip(REQUESTERS, late, strict=True):
        await control_plane.ask(workspace_id, by=by, request_id=request_id)
    await _wait_until_answered(control_plane, workspace_id, [*request_ids, *late])
    await stage.until_serving(workspace_id, first.instance_id)
    counts, statuses = aws.counts(workspace_id), await stage.statuses(workspace_id)
    answered = await control_plane.answered(workspace_id)
    result.seen.setdefault(fault.name, []).append(
        WorkspaceResult(
            needed=1,
            launches=before_late - 1,
            after_late=counts.launches - before_late,
            most_alive=counts.max_alive_at_once,
            unauthorized=max(unauthorized, statuses.count(401)),
            serving=statuses.count(200),
            lost=len({*request_ids, *late} - answered),
            seconds=None if served is None else asked_for + served,
        )
    )


async def _wait_until_answered(
    control_plane: ControlPlane, workspace_id: str, request_ids: list[str]
) -> None:
    """Give a control plane that handles requests in sequence the time for it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not set(request_ids) <= await control_plane.answered(workspace_id):
        if time.monotonic() > deadline:
            return  # reported as lost if it stays open
        await asyncio.sleep(LOOK_SECONDS)


async def _run_first_minute(
    stage: Stage, control_plane: ControlPlane, fault: Fault, workspace_id: str
) -> WorkspaceResult:
    """Bring a fresh workspace online."""
    await fault.before(stage, control_plane, workspace_id)
    await control_plane.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    seconds = await stage.until_serving(workspace_id)
    counts, statuses = stage.console.aws.counts(workspace_id), await stage.statuses(workspace_id)
    return WorkspaceResult(
        needed=0,
        launches=counts.launches - 1,
        after_late=0,
        most_alive=counts.max_alive_at_once,
        unauthorized=statuses.count(401),
        serving=statuses.count(200),
        lost=0,
        seconds=seconds,
    )


async def _count_heartbeats(
    stage: Stage, control_plane: ControlPlane, result: ControlPlaneResult, workspace_id: str
) -> None:
    """Return the heartbeat cost in Temporal of an idle workspace."""
    await control_plane.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    if await stage.until_serving(workspace_id) is None:
        raise AssertionError(f"{control_plane.name}: {workspace_id} never came up")
    [box] = stage.boxes(workspace_id)
    heartbeats, before = (
        int(str((await stage.watched(box))["heartbeats"])),
        await control_plane.history(workspace_id),
    )
    await asyncio.sleep(COUNTED_SECONDS)
    history = await control_plane.history(workspace_id)
    counted = int(str((await stage.watched(box))["heartbeats"])) - heartbeats
    result.events_per_heartbeat = (len(history) - len(before)) / counted
    result.actions_per_heartbeat = (events.actions_of(history) - events.actions_of(before)) / counted


async def _month_of_rounds(console: Console) -> float:
    """Return the monthly actions of the product's fleet rounds, extrapolated from one of each."""
    actions = 0.0
    for kind, seconds in ROUNDS:
        query = f"WorkflowType = '{kind}' AND ExecutionStatus = 'Completed'"
        async for one in console.client.list_workflows(query, limit=1):
            handle = console.client.get_workflow_handle(one.id, run_id=one.run_id)
            history = await handle.fetch_history()
            cost = events.actions_of(history.events) + SCHEDULED_ACTIONS
            actions += cost * MONTH_SECONDS / seconds
    return actions


def _short_name(control_plane: ControlPlane) -> str:
    return control_plane.name.split()[0].lower()
