"""The orphan sweep on a whole stack: of twenty planted instances, exactly the right ones are terminated."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import ScheduleDescription
from temporalio.service import RPCError

from devstack.console import JSON, Console, call_with_retries, connected, eventually
from devstack.stack import Stack
from tests.integration.conftest import SETTINGS
from tests.integration.planting import Planting, lost, one_pass
from tests.integration.test_registering import bootstrap_secret, box_of, calling, token_file
from tests.integration.watchdog import CANARY_SECRET_KEY
from tests.stacks import hurried
from workers.temporal.schedules import PeriodicWorkflow, ScheduleKeeper
from workflows.orphans.rules import OrphanAction
from workflows.orphans.workflow import SweepReport
from workflows.shared.names import SWEEP_SCHEDULE
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

SWEEP = {
    "ORPHAN_SWEEP_INTERVAL_SECONDS": "3600",
    "ORPHAN_MIN_AGE_SECONDS": "0.5",
    "ORPHAN_MAX_ACTIONS_PER_PASS": "5",
    "FENCE_UNCONFIRMED_SECONDS": "1",
    "HEARTBEAT_STALE_SECONDS": "120",
    "SERVER_KEYS": f"k1:{CANARY_SECRET_KEY}",
}
"""Sweeps are triggered by the test, so that it knows which pass did what. Staleness is not tested here."""

ALIVE = ("pending", "running")


@pytest.fixture(scope="module")
def swept_stack() -> Iterator[Stack]:
    with hurried(SETTINGS | SWEEP) as stack:
        yield stack


@pytest.fixture
async def console(swept_stack: Stack) -> AsyncIterator[Console]:
    async with connected(swept_stack) as console:
        await pause(console)
        yield console
        console.aws.clear()


@pytest.fixture
def planting(swept_stack: Stack, console: Console) -> Planting:
    return Planting(stack=swept_stack, console=console)


async def pause(console: Console, note: str = "swept by hand") -> None:
    """Pause the schedule: triggers still work, but the full hour does not sweep."""
    handle = console.client.get_schedule_handle(SWEEP_SCHEDULE)

    async def paused() -> bool:
        try:
            await handle.pause(note=note)
            return (await handle.describe()).schedule.state.paused
        except RPCError:  # a worker creates it shortly after its start
            return False

    await eventually(paused, bool)


async def alive(console: Console) -> set[str]:
    return {it.instance_id for it in console.aws.instances() if it.state in ALIVE}


def acted(report: SweepReport) -> int:
    found = [it for it in (report.instances, report.names) if it is not None]
    return sum(one.action.acts for it in found for one in it.orphans)


async def test_of_twenty_planted_instances_exactly_the_right_ones_go(
    console: Console, planting: Planting, swept_stack: Stack
) -> None:
    for name in ("live", "stopped", "dead"):
        await console.start(name)
    for name in ("live", "stopped", "dead"):
        await console.until_phase(name, Phase.ONLINE)
    await console.ask("live", requested_by="admin:alice", observed_generation=1)
    await console.ask("stopped", "request_stop", requested_by="admin:alice")
    await console.ask("dead", "request_delete", requested_by="admin:alice")
    await console.workflow("dead").result()
    await console.until_phase("stopped", Phase.STOPPED)
    box = (await console.until_phase("live", Phase.ONLINE, generation=2)).instance_id
    unrecorded = await lost(console, "lost")

    go = {
        "an older generation": await planting.plant("live", generation=1, attempt=4),
        "an even older one": await planting.plant("live", generation=None),
        "a second one of the current launch": await planting.plant("live", generation=2),
        "a later attempt": await planting.plant("live", generation=2, attempt=3),
        "stopped": await planting.plant("stopped"),
        "stopped, too": await planting.plant("stopped", attempt=2),
        "dead": await planting.plant("dead"),
        "dead, too": await planting.plant("dead", attempt=2),
        "dead, three": await planting.plant("dead", generation=9),
        "nobody's": await planting.plant("nobody"),
        "nobody's, too": await planting.plant("nobody", generation=7),
    }
    stay = {
        "foreign, stopped": await planting.plant("stopped", generation=8, owner="elsewhere"),
        "protected": await planting.plant("live", protect=True),
        "protected, dead": await planting.plant("dead", protect=True),
        "protected, nobody's": await planting.plant("nobody", protect=True),
        "foreign": await planting.plant("live", owner="another-control-plane"),
        "foreign, dead": await planting.plant("dead", owner="another-control-plane"),
        "foreign, nobody's": await planting.plant("nobody", owner="another-control-plane"),
        "without a workspace": await planting.plant(""),
    }
    assert len(go) + len(stay) + len([unrecorded]) == 20

    reports = [await one_pass(console)]
    assert acted(reports[0]) == 0, "seen once is not enough"
    assert await alive(console) == {*go.values(), *stay.values(), unrecorded, str(box)}
    while len(reports) < 8 and (len(reports) < 4 or acted(reports[-1])):
        reports.append(await one_pass(console))
        assert acted(reports[-1]) <= 5
    left = await eventually(lambda: alive(console), lambda it: not it & set(go.values()))
    assert left == {*stay.values(), unrecorded, str(box)}

    adopted = await console.until_phase("lost", Phase.ONLINE)
    assert (adopted.instance_id, adopted.generation) == (unrecorded, 1)
    assert console.aws.counts("lost").launches == 1
    status = await console.until_phase("live", Phase.ONLINE)
    assert (status.generation, status.instance_id) == (2, box)
    assert (await console.status("stopped")).phase is Phase.STOPPED
    by_sweep = {name for report in reports for name in report.ended}
    assert by_sweep == {go[name] for name in go if name.startswith(("dead", "nobody"))}
    last = await one_pass(console)
    assert last.instances is not None
    assert {one.name for one in last.instances.orphans if one.action is OrphanAction.PROTECTED} == {
        stay[name] for name in stay if name.startswith("protected")
    }
    assert acted(last) == 0
    assert "orphan.terminated" in swept_stack.log("worker").read_text()


async def test_a_box_that_would_not_die_is_declared_dead_refused_at_every_door_and_swept(
    console: Console, swept_stack: Stack
) -> None:
    name = "undying"
    await console.start(name)
    old = (await console.until_phase(name, Phase.ONLINE)).instance_id
    assert old is not None
    view = await box_of(swept_stack, name)
    token = token_file(view).read_text().strip()
    os.killpg(view.pid, signal.SIGSTOP)  # its host is lost: it neither ends nor calls
    kept = console.aws.inject(
        "TerminateInstances", "error", code="InternalError", status=500, times=None, workspace=name
    )
    await console.ask(name, requested_by="admin:alice", observed_generation=1)

    async def why() -> str:
        error = (await console.status(name)).last_error
        return "" if error is None else f"{error.phase}: {error.code}"

    await eventually(why, lambda told: told == "fence: InternalError")
    assert console.aws.counts(name).launches == 1, "nothing is launched while it may be alive"

    async def declared(by: str) -> OutcomeKind:
        return (await console.ask(name, "declare_dead", instance_id=old, requested_by=by)).outcome

    assert await declared("watchdog") is OutcomeKind.REJECTED
    await eventually(lambda: declared("admin:alice"), lambda outcome: outcome is OutcomeKind.ACCEPTED)
    status = await console.until_phase(name, Phase.ONLINE, generation=2)
    assert old in await alive(console), "it still runs"

    for credential in (token, bootstrap_secret(name, 1)):
        async with calling(swept_stack, credential) as http:
            doors: dict[str, JSON] = {
                "/registry/register": {"id": name, "url": "http://10.6.6.6:6666/evil"},
                "/registry/heartbeat": {"workspace_id": name},
                "/registry/update-card": {"workspace_id": name, "agent_card": {"name": "evil"}},
                f"/workspaces/{name}/delegate": {"target_id": name, "task": "evil"},
                f"/workspaces/{name}/delegations/d-1/update": {"status": "completed"},
            }
            for door, body in doors.items():
                answer = await call_with_retries(http, "POST", door, body)
                assert answer.status_code in (401, 403, 410), (door, answer.text)
            told = await call_with_retries(http, "GET", f"/workspaces/{name}/state")
            assert told.status_code == 401 or told.json()["status"] == "superseded"
            for door in (f"/workspaces/{name}", f"/registry/discover/{name}"):
                answer = await call_with_retries(http, "GET", door)
                assert answer.status_code in (401, 403, 410), (door, answer.text)
    assert "evil" not in str(await console.record(name))
    assert await console.live_tokens(name) == [{"generation": 2, "state": "active"}]
    assert console.aws.counts(name).dns_changes == 2

    console.aws.release(kept)

    async def swept() -> set[str]:
        await one_pass(console)  # two passes see it, unless the second follows too soon
        return await alive(console)

    await eventually(swept, lambda it: old not in it)
    now = await console.until_phase(name, Phase.ONLINE)
    assert (now.generation, now.instance_id) == (2, status.instance_id)


async def test_a_schedule_is_made_once_changed_by_settings_and_left_paused(console: Console) -> None:
    each_hour = PeriodicWorkflow(
        schedule_id="a-round", workflow_type="SweepWorkflow", interval=timedelta(hours=1), summary="a test's"
    )

    async def check(wanted: PeriodicWorkflow) -> None:
        await ScheduleKeeper(client=console.client, periodic=[wanted], interval=timedelta(minutes=1)).check()

    await asyncio.gather(*(check(each_hour) for _ in range(8)))
    handle = console.client.get_schedule_handle("a-round")
    first = await handle.describe()
    assert first.schedule.spec.intervals[0].every == timedelta(hours=1)
    assert first.info.last_updated_at is None

    async def standing(is_so: Callable[[ScheduleDescription], bool]) -> ScheduleDescription:
        """The schedule, once the condition holds; the server applies changes asynchronously."""
        return await eventually(handle.describe, is_so)

    await handle.pause(note="by admin:alice, while she looks")
    await standing(lambda it: it.schedule.state.paused)
    await check(each_hour)
    paused = await handle.describe()
    assert paused.schedule.state.paused
    await check(replace(each_hour, interval=timedelta(hours=2)))
    changed = await standing(lambda it: it.schedule.spec.intervals[0].every == timedelta(hours=2))
    assert changed.schedule.state.paused
    assert changed.schedule.state.note == "by admin:alice, while she looks"
    await handle.delete()


async def test_the_worker_sweeps_by_the_clock_and_a_pause_outlives_it(
    console: Console, swept_stack: Stack
) -> None:
    handle = console.client.get_schedule_handle(SWEEP_SCHEDULE)
    found = await handle.describe()
    assert found.schedule.spec.intervals[0].every == timedelta(hours=1)
    await pause(console, note="a look")
    started = swept_stack.log("worker").read_text().count("worker.started")
    await asyncio.to_thread(swept_stack.restart, "worker")

    async def starts() -> int:
        return swept_stack.log("worker").read_text().count("worker.started")

    await eventually(starts, lambda number: number > started)
    await one_pass(console)  # a trigger ignores a pause
    assert (await handle.describe()).schedule.state.paused
    await handle.unpause()
