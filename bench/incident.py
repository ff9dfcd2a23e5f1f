"""The incident, and a schedule of faults around it, under Onebox and its rivals side by side.

What each one launches, answers and leaves behind is read from the AWS endpoint, the boxes and the records.
"""

import asyncio
import time

from bench import events
from bench.contenders import ADMIN, Contender, contending
from bench.faults import ALONE, LATE_LIST_SECONDS, SIDE_BY_SIDE, SLOW_SECONDS, Fault
from bench.outcomes import MONTH_SECONDS, Seen, Tale, told
from bench.results import Result
from bench.size import Size
from bench.stage import LOOK_SECONDS, SETTLE_SECONDS, Stage
from devstack.console import Console, connected
from devstack.processes import LOCALHOST, free_port
from devstack.stack import Stack

REQUESTERS = ("watchdog", "auto-recovery", ADMIN)
"""Who asked in the incident, all within a second."""

COUNTED_SECONDS = 6.0
"""For so long events of beats are counted."""

ROUNDS = (("WatchdogWorkflow", 30), ("SweepWorkflow", 120), ("RescueWorkflow", 120))
"""How often they go round by the product's defaults, in seconds; for a month's actions."""

SCHEDULED_ACTIONS = 2
"""Of a schedule's start, beside those of the workflow that it starts."""

SETTINGS = {
    "HEARTBEAT_SECONDS": "0.5",
    "HEARTBEAT_STALE_SECONDS": "6",
    "ONEBOX_WATCH_SECONDS": "1",
    "ORPHAN_SWEEP_SECONDS": "5",
    "RESCUE_SECONDS": "5",
    "WATCHDOG_SECONDS": "5",
    # Half of this fleet is silent at once, which is the schedule's doing and no outage.
    "FLEET_FREEZE_PERCENT": "100",
    "FLEET_CONCURRENT_PERCENT": "100",
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
    return told(tales, faults=faults, work=_work(size), rounds_cost=rounds_cost)


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


async def _played(size: Size, stack: Stack, port: int) -> tuple[dict[str, Tale], float]:
    async with connected(stack) as console, contending(stack, console, box_port=port) as contenders:
        stage = Stage(stack, console)
        tales = {each.name: Tale() for each in contenders}
        for number in range(size.fault_rounds):
            faults = [(fault, f"{number}-{index}") for index, fault in enumerate(SIDE_BY_SIDE)]
            await asyncio.gather(
                *(
                    _live(stage, contender, tales[contender.name], fault, f"{_short(contender)}-{suffix}")
                    for contender in contenders
                    for fault, suffix in faults
                )
            )
            await asyncio.gather(
                *(
                    _live(
                        stage, contender, tales[contender.name], ALONE, f"{_short(contender)}-{number}-crash"
                    )
                    for contender in contenders
                )
            )
        await asyncio.gather(
            *(
                _count_beats(stage, contender, tales[contender.name], f"{_short(contender)}-healthy")
                for contender in contenders
            )
        )
        return tales, await _month_of_rounds(console)


async def _live(stage: Stage, contender: Contender, tale: Tale, fault: Fault, workspace_id: str) -> None:
    """One workspace's night."""
    aws, asked = stage.console.aws, [f"{workspace_id}-{by}" for by in REQUESTERS]
    if fault.fresh:
        tale.seen.setdefault(fault.name, []).append(await _born(stage, contender, fault, workspace_id))
        return
    await contender.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    if await stage.until_serving(workspace_id) is None:
        raise AssertionError(f"{contender.name}: {workspace_id} never came up")
    [first] = stage.boxes(workspace_id)
    await stage.watched(first, "silent")
    await fault.before(stage, contender, workspace_id)
    began = time.monotonic()
    meanwhile = asyncio.create_task(fault.meanwhile(stage, contender, workspace_id))
    await asyncio.gather(
        *(
            contender.ask(workspace_id, by=by, request_id=request_id)
            for by, request_id in zip(REQUESTERS, asked, strict=True)
        )
    )
    await meanwhile
    await _until_answered(contender, workspace_id, asked)
    asked_for = time.monotonic() - began
    served = await stage.until_serving(workspace_id, first.instance_id)
    unauthorized = (await stage.statuses(workspace_id)).count(401)
    for each in aws.faults():
        if each.fault.workspace == workspace_id:
            aws.release(each.id)
    before_late = aws.counts(workspace_id).launches
    late = [f"{request_id}-late" for request_id in asked]
    for by, request_id in zip(REQUESTERS, late, strict=True):
        await contender.ask(workspace_id, by=by, request_id=request_id)
    await _until_answered(contender, workspace_id, [*asked, *late])
    await stage.until_serving(workspace_id, first.instance_id)
    counts, statuses = aws.counts(workspace_id), await stage.statuses(workspace_id)
    answered = await contender.answered(workspace_id)
    tale.seen.setdefault(fault.name, []).append(
        Seen(
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


async def _until_answered(contender: Contender, workspace_id: str, asked: list[str]) -> None:
    """Who takes one request after the other is given the time for it."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not set(asked) <= await contender.answered(workspace_id):
        if time.monotonic() > deadline:
            return  # it is told as lost, if it stays so
        await asyncio.sleep(LOOK_SECONDS)


async def _born(stage: Stage, contender: Contender, fault: Fault, workspace_id: str) -> Seen:
    """A fresh workspace's first minute."""
    await fault.before(stage, contender, workspace_id)
    await contender.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    seconds = await stage.until_serving(workspace_id)
    counts, statuses = stage.console.aws.counts(workspace_id), await stage.statuses(workspace_id)
    return Seen(
        needed=0,
        launches=counts.launches - 1,
        after_late=0,
        most_alive=counts.max_alive_at_once,
        unauthorized=statuses.count(401),
        serving=statuses.count(200),
        lost=0,
        seconds=seconds,
    )


async def _count_beats(stage: Stage, contender: Contender, tale: Tale, workspace_id: str) -> None:
    """What beats cost in Temporal, of a workspace to which nothing happens."""
    await contender.ask(workspace_id, by="", request_id=f"{workspace_id}-first")
    if await stage.until_serving(workspace_id) is None:
        raise AssertionError(f"{contender.name}: {workspace_id} never came up")
    [box] = stage.boxes(workspace_id)
    beats, before = int(str((await stage.watched(box))["beats"])), await contender.history(workspace_id)
    await asyncio.sleep(COUNTED_SECONDS)
    history = await contender.history(workspace_id)
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


def _short(contender: Contender) -> str:
    return contender.name.split()[0].lower()
