"""The incident, and a schedule of faults around it, under Onebox and its rivals side by side.

What each one launches, answers and leaves behind is read from the AWS endpoint, the boxes and the records.
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
"""Who asked in the incident, all within a second."""

COUNTED_SECONDS = 6.0
"""For so long events of beats are counted."""

ROUNDS = (("WatchdogWorkflow", 30), ("SweepWorkflow", 120), ("RepairWorkflow", 120))
"""How often they go round by the product's defaults, in seconds; for a month's actions."""

SCHEDULED_ACTIONS = 2
"""Of a schedule's start, beside those of the workflow that it starts."""

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "6",
    "ONEBOX_WATCH_SECONDS": "1",
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "5",
    "REPAIR_INTERVAL_SECONDS": "5",
    "WATCHDOG_INTERVAL_SECONDS": "5",
    # Half of this fleet is silent at once, which is the schedule's doing and no outage.
    "FLEET_FREEZE_PERCENT": "100",
    "FLEET_MAX_CONCURRENT_PERCENT": "100",
}
"""Beats are faster than in the field, and so is noticing; what is decided is the same."""


def run(size: Size) -> Result:
    """The benchmark."""
    port = free_port()
    settings = SETTINGS | {"REGISTER_API_URL": f"http://{LOCALHOST}:{port}"}
    with Stack(
        free_ports=True, fsync=True, settings=settings, pending_seconds=0.3, terminating_seconds=0.5
    ) as stack:
        tales, rounds_cost = asyncio.run(_played(size, stack, port))
    faults = [each.name for each in (*SIDE_BY_SIDE, ALONE)]
    return result_of(tales, faults=faults, work=_work(size), rounds_cost=rounds_cost)


def _work(size: Size) -> str:
    return (
        "A workspace's box falls silent; watchdog, auto-recovery and an admin ask for its restart within a "
        "second, and again when it is over. Once as it was, and once under each fault of the schedule: EC2 "
        f"takes {SLOW_SECONDS:g} s longer to end the old instance; the answer to the new box's register call "
        "is lost; that of a fresh workspace is, and nobody asks; who launches is killed while RunInstances "
        f"takes effect, and for {LATE_LIST_SECONDS:g} s EC2 does not list what it launched. "
        f"{size.fault_rounds} round(s), each with new workspaces; boxes are processes with the same "
        "unmodified runtime, for which a 401 to its register call is final."
    )


async def _played(size: Size, stack: Stack, port: int) -> tuple[dict[str, ControlPlaneResult], float]:
    async with (
        connected(stack) as console,
        running_control_planes(stack, console, box_port=port) as contenders,
    ):
        stage = Stage(stack, console)
        tales = {each.name: ControlPlaneResult() for each in contenders}
        for number in range(size.fault_rounds):
            faults = [(fault, f"{number}-{index}") for index, fault in enumerate(SIDE_BY_SIDE)]
            await asyncio.gather(
                *(
                    _run_workspace(
                        stage, contender, tales[contender.name], fault, f"{_short_name(contender)}-{suffix}"
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
                        tales[contender.name],
                        ALONE,
                        f"{_short_name(contender)}-{number}-crash",
                    )
                    for contender in contenders
                )
            )
        await asyncio.gather(
            *(
                _count_beats(stage, contender, tales[contender.name], f"{_short_name(contender)}-healthy")
                for contender in contenders
            )
        )
        return tales, await _month_of_rounds(console)


async def _run_workspace(
    stage: Stage, control_plane: ControlPlane, tale: ControlPlaneResult, fault: Fault, workspace_id: str
) -> None:
    """One workspace's night."""
    aws, asked = stage.console.aws, [f"{workspace_id}-{by}" for by in REQUESTERS]
    if fault.fresh:
        tale.seen.setdefault(fault.name, []).append(
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
            for by, request_id in zip(REQUESTERS, asked, strict=True)
        )
    )
    await meanwhile
    await _wait_until_answered(control_plane, workspace_id, asked)
    asked_for = time.monotonic() - began
    served = await stage.until_serving(workspace_id, first.instance_id)
    unauthorized = (await stage.statuses(workspace_id)).count(401)
    for each in aws.faults():
        if each.fault.workspace == workspace_id:
            aws.release(each.id)
    before_late = aws.counts(workspace_id).launches
    late = [f"{request_id}-late" for request_id in asked]
    for by, request_id in zip(REQUESTERS, late, strict=True):
        await control_plane.ask(workspace_id, by=by, request_id=request_id)
    await _wait_until_answered(control_plane, workspace_id, [*asked, *late])
    await stage.until_serving(workspace_id, first.instance_id)
    counts, statuses = aws.counts(workspace_id), await stage.statuses(workspace_id)
    answered = await control_plane.answered(workspace_id)
    tale.seen.setdefault(fault.name, []).append(
        WorkspaceResult(
            needed=1,
            launches=before_late - 1,
            after_late=counts.launches - before_late,
            most_alive=counts.max_alive_at_once,
            unauthorized=max(unauthorized, statuses.count(401)),
            serving=statuses.count(200),
            lost=len({*asked, *late} - answered),
            seconds=None if served is None else asked_for + served,
        )
    )


async def _wait_until_answered(control_plane: ControlPlane, workspace_id: str, asked: list[str]) -> None:
    """Who takes one request after the other is given the time for it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not set(asked) <= await control_plane.answered(workspace_id):
        if time.monotonic() > deadline:
            return  # it is told as lost, if it stays so
        await asyncio.sleep(LOOK_SECONDS)


async def _run_first_minute(
    stage: Stage, control_plane: ControlPlane, fault: Fault, workspace_id: str
) -> WorkspaceResult:
    """A fresh workspace's first minute."""
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


async def _count_beats(
    stage: Stage, control_plane: ControlPlane, tale: ControlPlaneResult, workspace_id: str
) -> None:
    """What beats cost in Temporal, of a workspace to which nothing happens."""
    await control_plane.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    if await stage.until_serving(workspace_id) is None:
        raise AssertionError(f"{control_plane.name}: {workspace_id} never came up")
    [box] = stage.boxes(workspace_id)
    beats, before = int(str((await stage.watched(box))["beats"])), await control_plane.history(workspace_id)
    await asyncio.sleep(COUNTED_SECONDS)
    history = await control_plane.history(workspace_id)
    counted = int(str((await stage.watched(box))["beats"])) - beats
    tale.events_per_beat = (len(history) - len(before)) / counted
    tale.actions_per_beat = (events.actions_of(history) - events.actions_of(before)) / counted


async def _month_of_rounds(console: Console) -> float:
    """Actions a month of the product's rounds for the whole fleet, by what one of each cost here."""
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
