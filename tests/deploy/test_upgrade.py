"""The upgrade with versioned workers, as docs/deployment.md has it, while a recreate is in flight."""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from cli.doctor import versions as version
from devstack.console import Console, connected, eventually
from devstack.processes import Child
from devstack.stack import Stack
from tests.documents import ROOT, block
from tests.stacks import hurried
from workflows.workspace.enums import Phase

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(900)]

SECONDS = 120.0
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    settings = {
        "HEARTBEAT_SECONDS": "0.3",
        "TEMPORAL_DEPLOYMENT_NAME": "onebox",
        "TEMPORAL_WORKER_BUILD_ID": "1",
    }
    with hurried(settings) as stack:
        yield stack


@pytest.fixture
async def console(stack: Stack) -> AsyncIterator[Console]:
    async with connected(stack) as console:
        yield console


def run(words: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / words[0]), *words[1:]]
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True)


async def make_current(stack: Stack, build: str) -> None:
    """The command of the runbook; until the server has seen the build poll all queues, it refuses."""
    line = block(ROOT / "docs" / "runbook.md", "sh", "set-current-version").strip()
    words = shlex.split(line.replace("--build-id 2", f"--build-id {build}"))

    async def told() -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run, words, stack.environment)

    result = await eventually(told, lambda result: result.returncode == 0, seconds=SECONDS)
    assert result.returncode == 0, result.stderr


async def until_logged(stack: Stack, name: str, event: str) -> None:
    """What a part finds out beside its work, it may say after it was ready."""

    async def log() -> str:
        return stack.log(name).read_text()

    await eventually(log, lambda text: event in text, seconds=SECONDS)


async def told_by_the_doctor(environment: Mapping[str, str], status: str) -> str:
    """What it says of versions with this status; a server that gave no answer in time is a finding, too."""

    async def found() -> dict[str, str]:
        said = await asyncio.to_thread(run, ["onebox", "doctor", "--json", "--for", "worker"], environment)
        findings: list[dict[str, str]] = json.loads(said.stdout)["findings"]
        [finding] = [it for it in findings if it["check"] == version.CHECK] or [{}]
        return finding

    return (await eventually(found, lambda it: it.get("status") == status, seconds=SECONDS))["message"]


async def the_doctor_knows_who_gets_work(environment: Mapping[str, str]) -> None:
    """Build 2 is current: all is well for it, but not for the one before, nor for a worker without."""
    bare = {name: value for name, value in environment.items() if name not in version.VARIABLES}
    current = {**environment, "TEMPORAL_WORKER_BUILD_ID": "2"}
    for place, status, words in (
        (current, "ok", "build 2 of onebox is current"),
        (environment, "warning", "build 1 of onebox gets no work"),
        (bare, "warning", "a worker without a version"),
    ):
        assert words in await told_by_the_doctor(place, status)


def test_the_page_on_deployment_has_the_runbooks_command() -> None:
    line = block(ROOT / "docs" / "runbook.md", "sh", "set-current-version")
    assert f"    {line}" in (ROOT / "docs" / "deployment.md").read_text()


@pytest.mark.slow
async def test_a_recreate_in_progress_continues_in_the_next_build(stack: Stack, console: Console) -> None:
    await until_logged(stack, "worker", "version.none_current")
    await make_current(stack, "1")
    await console.start("ws-1")
    await console.until_phase("ws-1", Phase.ONLINE, seconds=SECONDS)
    new = Child(
        "worker-2",
        [sys.executable, "-m", "cli", "worker"],
        log=stack.log("worker-2"),
        environment=stack.environment
        | {"TEMPORAL_WORKER_BUILD_ID": "2", "WORKER_METRICS_BIND": "", "SDK_METRICS_BIND": ""},
        stop_seconds=SECONDS,
    )
    new.start()
    try:
        new.wait_ready(lambda: "version.not_current" in new.log_text(), seconds=SECONDS)
        console.aws.inject("RunInstances", "error", code="RequestLimitExceeded", times=1)
        await console.ask("ws-1", requested_by="admin:alice", request_id="r1", observed_generation=1)
        await make_current(stack, "2")
        await asyncio.to_thread(stack.stop, "worker")
        assert "worker.stopped" in stack.log("worker").read_text()

        await console.signal("ws-1", requested_by="watchdog", request_id="r2", observed_generation=1)

        async def recorded() -> list[Mapping[str, object]]:
            return list(
                await console.rows(
                    "SELECT r.request_id, w.generation, w.phase FROM requests r JOIN workspaces w USING "
                    "(workspace_id) WHERE workspace_id = %s ORDER BY request_id",
                    "ws-1",
                )
            )

        expected: list[Mapping[str, object]] = [
            {"request_id": each, "generation": 2, "phase": "online"} for each in ("r1", "r2")
        ]
        assert await eventually(recorded, lambda rows: rows == expected, seconds=SECONDS) == expected
        assert console.aws.counts("ws-1").max_unterminated_at_once == 1
        result = await asyncio.to_thread(run, ["onebox", "replay", "ws-1"], stack.environment)
        assert result.returncode == 0, result.stdout + result.stderr
        new.wait_ready(lambda: "version.current" in new.log_text(), seconds=SECONDS)
        await the_doctor_knows_who_gets_work(stack.environment)
    finally:
        new.stop()
    assert new.exit_code == 0, new.tail()
