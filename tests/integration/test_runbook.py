"""The runbook's commands, run against a stack, print what the runbook shows.

A scene causes the situation of its section and runs the section's commands. Scenes run in the document's
order.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError

from devstack.console import Console, connected, eventually
from devstack.postgres import binary
from devstack.stack import Stack
from tests.documents import ROOT, Section, block, sections
from tests.integration.conftest import SETTINGS
from tests.integration.shell import Shell
from tests.integration.test_delegations import delegate
from tests.integration.test_registering import box_of
from tests.stacks import hurried
from workflows.delegation.messages import workflow_id_of
from workflows.shared.names import TASK_QUEUE
from workflows.workspace.enums import CanaryPolicy, Phase
from workflows.workspace.messages import WorkspaceSpec

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

RUNBOOK = ROOT / "docs" / "runbook.md"
SECTIONS = {section.anchor: section for section in sections(RUNBOOK) if section.shown}
PATIENCE = 120.0

NO_IMAGE = WorkspaceSpec(image_id="ami-00000000deadbeef0")
QUICK = WorkspaceSpec(canary=CanaryPolicy.OFF)


@dataclass(kw_only=True)
class Stage:
    """A stack, and the runbook section in progress."""

    stack: Stack
    console: Console
    shell: Shell
    section: Section
    standing_for: dict[str, str] = field(default_factory=dict)
    """Values for the document's placeholders in capitals."""
    _shown: int = 0

    async def show(self, commands: int | None = None) -> None:
        """Run the section's next commands, or all remaining ones."""
        end = len(self.section.shown) if commands is None else self._shown + commands
        for shown in self.section.shown[self._shown : end]:
            self._shown += 1
            await self.shell.compare(shown, self.standing_for)

    async def start(self, *workspaces: str, spec: WorkspaceSpec = QUICK) -> None:
        for workspace in workspaces:
            with suppress(WorkflowAlreadyStartedError):
                await self.console.start(workspace, spec)

    async def answering(self, workspace: str) -> None:
        """Wait until its worker answers; after an absence, the worker replays the workflow first."""

        async def answers() -> bool:
            try:
                await self.console.status(workspace)
            except RPCError:
                return False
            return True

        await eventually(answers, bool, seconds=PATIENCE)

    async def online(self, *workspaces: str, generation: int | None = None) -> None:
        await self.start(*workspaces)
        for workspace in workspaces:
            await self.answering(workspace)
            await self.console.until_phase(workspace, Phase.ONLINE, generation=generation, seconds=PATIENCE)

    async def part(self, do: Callable[[str], None], name: str) -> None:
        await asyncio.to_thread(do, name)


Scene = Callable[[Stage], Awaitable[None]]
SCENES: dict[str, Scene] = {}


def scene(anchor: str) -> Callable[[Scene], Scene]:
    def register(played: Scene) -> Scene:
        SCENES[anchor] = played
        return played

    return register


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    settings = SETTINGS | {
        "FENCE_UNCONFIRMED_SECONDS": "1",
        "STALE_RECREATE_SECONDS": "3600",
        "WATCHDOG_INTERVAL_SECONDS": "2",
        "ORPHAN_SWEEP_INTERVAL_SECONDS": "3600",
    }
    with hurried(settings) as stack:
        yield stack


@pytest.fixture
async def console(stack: Stack) -> AsyncIterator[Console]:
    async with connected(stack) as console:
        yield console
        console.aws.clear()


def test_every_section_with_commands_has_a_scene_and_no_other() -> None:
    assert list(SCENES) == list(SECTIONS)


@pytest.mark.slow
@pytest.mark.parametrize("anchor", SCENES)
async def test_the_commands_print_what_the_runbook_says(
    stack: Stack, console: Console, tmp_path: Path, anchor: str
) -> None:
    stage = Stage(stack=stack, console=console, shell=Shell(stack, tmp_path), section=SECTIONS[anchor])
    await SCENES[anchor](stage)
    await stage.show()


@pytest.mark.slow
async def test_every_saved_view_is_a_query_that_the_server_takes(stack: Stack, tmp_path: Path) -> None:
    shell = Shell(stack, tmp_path)
    views = [line.split("  ", 1)[1].strip() for line in block(RUNBOOK, "text", "Not online").splitlines()]
    assert len(views) > 10
    for view in views:
        said = await shell.run(f"temporal workflow count --query '{view}'")
        assert said.startswith("Total: "), said


async def troubled(it: Stage) -> None:
    """A workspace without an image, and one whose box is silent."""
    # A task of an unknown type fails repeatedly; it takes a while until it is reported.
    with suppress(WorkflowAlreadyStartedError):
        await it.console.client.start_workflow("FromTomorrow", id="ws-stuck", task_queue=TASK_QUEUE)
    await it.start("ws-imageless", spec=NO_IMAGE)
    await it.start("ws-mute")
    await eventually(
        lambda: it.console.record("ws-imageless"),
        lambda found: found.get("last_error") is not None,
        seconds=PATIENCE,
    )
    if (await it.console.status("ws-mute")).phase is not Phase.DEGRADED:
        await it.online("ws-mute")
        await it.console.set_box_mode("ws-mute", "silent")
    await it.console.until_phase("ws-mute", Phase.DEGRADED, seconds=PATIENCE)


scene("what-is-not-online")(troubled)
scene("why-isnt-it-online")(troubled)


@scene("recreate-a-box")
async def _(it: Stage) -> None:
    await it.online("ws-hangs")
    # It is in progress until both have requested.
    refused = it.console.aws.inject(
        "RunInstances", "error", code="InternalError", times=None, workspace="ws-hangs"
    )
    await it.show(2)
    it.console.aws.release(refused)
    await it.online("ws-hangs", generation=2)
    await it.show()
    await it.online("ws-hangs", generation=3)


@scene("force-a-recreate")
async def _(it: Stage) -> None:
    await it.part(it.stack.stop, "boxes")
    await it.start("ws-waits")
    await it.console.until_phase("ws-waits", Phase.AWAITING_REGISTRATION, seconds=PATIENCE)
    await it.show()
    await it.part(it.stack.start, "boxes")
    await it.online("ws-waits", generation=2)


@scene("stop-and-start")
async def _(it: Stage) -> None:
    await it.online("ws-rests")
    await it.show(2)
    await it.show(1)
    await it.online("ws-rests", generation=2)


@scene("delete")
async def _(it: Stage) -> None:
    await it.online("ws-over")
    await it.show()


@scene("recreate-many")
async def _(it: Stage) -> None:
    await troubled(it)
    await it.show()
    await it.online("ws-mute", generation=2)


@scene("pause-the-watchdog")
async def _(it: Stage) -> None:
    await it.online("ws-hangs")


@scene("freeze-and-thaw")
async def _(it: Stage) -> None:
    await it.online("ws-frozen")


@scene("a-box-that-cannot-be-confirmed-dead")
async def _(it: Stage) -> None:
    await it.online("ws-undead")
    old = (await it.console.status("ws-undead")).instance_id
    assert old is not None
    it.standing_for["INSTANCE"] = old
    box = await box_of(it.stack, "ws-undead")
    assert box.instance_id == old
    os.killpg(box.pid, signal.SIGSTOP)  # its host is lost: it does not even end itself
    it.console.aws.inject(
        "TerminateInstances", "error", code="InternalError", status=500, times=None, workspace="ws-undead"
    )
    await it.console.ask("ws-undead", requested_by="admin:alice", observed_generation=1)
    await eventually(
        partial(it.console.status, "ws-undead"),
        lambda status: "cannot be confirmed" in str(status.conditions),
        seconds=PATIENCE,
    )
    await it.show()
    await it.online("ws-undead", generation=2)


@scene("dead-letters")
async def _(it: Stage) -> None:
    await it.online("ws-source", "ws-target")
    await eventually(
        partial(it.console.record, "ws-target"), lambda record: bool(record.get("url")), seconds=PATIENCE
    )
    # A box at its address that listens on another port, and five simulated failed attempts.
    await it.console.rows(
        "UPDATE generations SET url = 'http://x:1/' WHERE workspace_id = 'ws-target' RETURNING 1"
    )
    delegation = await delegate(it.console, "ws-source", "ws-target")
    it.standing_for["DELEGATION"] = delegation
    workflow = it.console.client.get_workflow_handle(workflow_id_of(delegation))

    async def looked() -> bool:
        try:
            return bool((await workflow.describe()).typed_search_attributes)
        except RPCError:
            return False

    async def given_up_on() -> None:
        await it.console.rows(
            "UPDATE delegations SET attempts = 5, next_attempt_at = NULL WHERE delegation_id = %s"
            " RETURNING 1",
            delegation,
        )
        await workflow.signal("stirred")

    await eventually(looked, bool, seconds=PATIENCE)
    await given_up_on()
    await it.show()


@scene("orphans")
async def _(it: Stage) -> None:
    await it.show()


@scene("stuck-workflows")
async def _(it: Stage) -> None:
    await troubled(it)
    await it.show()


@scene("reset")
async def _(it: Stage) -> None:
    await it.online("ws-reset")


@scene("terminate-and-start-again")
async def _(it: Stage) -> None:
    await it.online("ws-again")
    launches = it.console.aws.counts("ws-again").launches
    await it.show()
    assert it.console.aws.counts("ws-again").launches == launches


@scene("the-register-api-is-down")
async def _(it: Stage) -> None:
    await it.online("ws-hangs")
    await it.part(it.stack.stop, "api")
    try:
        await it.show()
    finally:
        await it.part(it.stack.start, "api")


@scene("temporal-is-down")
async def _(it: Stage) -> None:
    await it.part(it.stack.stop, "temporal")
    try:
        await it.show()
    finally:
        await it.part(it.stack.start, "temporal")


@scene("postgresql-is-down")
async def _(it: Stage) -> None:
    await it.online("ws-dry")
    await it.part(it.stack.stop, "postgres")
    try:
        await it.show()
    finally:
        await it.part(it.stack.start, "postgres")
    await it.online("ws-dry", generation=2)


@scene("aws-throttles-refuses-or-has-no-room")
async def _(it: Stage) -> None:
    it.console.aws.inject(
        "RunInstances",
        "error",
        code="RequestLimitExceeded",
        status=503,
        times=None,
        workspace="ws-throttled",
    )
    await it.start("ws-throttled")
    await it.show()
    it.console.aws.clear()
    await it.online("ws-throttled")


@scene("the-database-was-restored-from-a-backup")
async def _(it: Stage) -> None:
    await it.online("ws-restored")
    backup = await it.shell.run(
        f'{binary("pg_dump")} --no-owner --file backup.sql "$DATABASE_URL" && echo ok'
    )
    assert backup.splitlines()[-1:] == ["ok"], backup
    await it.console.ask("ws-restored", requested_by="admin:alice", observed_generation=1)
    await it.online("ws-restored", generation=2)
    for part in ("worker", "api"):
        await it.part(it.stack.stop, part)
    emptied = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
    restored = await it.shell.run(
        f'psql -q -v ON_ERROR_STOP=1 "$DATABASE_URL" -c "{emptied}" -f backup.sql > restored.log && echo ok'
    )
    assert restored.splitlines()[-1:] == ["ok"], restored
    await it.show(2)
    for part in ("worker", "api"):
        await it.part(it.stack.start, part)
    assert [
        row["generation"]
        for row in await it.console.rows(
            "SELECT generation FROM workspaces WHERE workspace_id = 'ws-restored'"
        )
    ] == [1]
    await it.answering("ws-restored")
    await it.show(1)
    await it.online("ws-restored", generation=3)
    alive = [one for one in it.console.aws.instances("ws-restored") if one.state in ("pending", "running")]
    assert len(alive) == 1, "the box of generation 2, which the record did not know, is gone"
    await it.show()


@scene("rotate-the-servers-key")
async def _(it: Stage) -> None:
    await it.online("ws-hangs")


@scene("a-bad-night")
async def _(it: Stage) -> None:
    await it.online("ws-hangs")
