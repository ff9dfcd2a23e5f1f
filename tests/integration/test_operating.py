"""Operator tools: the temporal CLI, exported histories, `onebox dev` and its end."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from temporalio.client import Schedule

from devstack.console import TIMEOUT_SECONDS, Console, connected, eventually
from devstack.stack import Stack
from devstack.temporal import temporal_cli
from tests.documents import ROOT, block
from tests.integration.wire import Wire
from tests.stacks import hurried
from workflows.shared.names import WATCHDOG_SCHEDULE
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

MESSAGES, RECOVERY = ROOT / "docs" / "messages.md", ROOT / "docs" / "recovery.md"
REQUESTERS = ("watchdog", "auto-recovery", "admin:core-devops")


def temporal(stack: Stack, *words: str) -> str:
    """Output of a temporal command that must succeed; through the codec server, if there is one."""
    token = f"Bearer {stack.operator_token}"
    codec = ("--codec-endpoint", stack.codec_url, "--codec-auth", token) if stack.codec_url else ()
    done = subprocess.run(
        [temporal_cli(), *words, "--address", stack.temporal_address, *codec],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def onebox(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli", *words],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, **environment},
    )


async def test_the_temporal_cli_alone_starts_and_recreates_a_workspace(
    stack: Stack, console: Console, workspace: str
) -> None:
    id_ = ("--workflow-id", workspace)
    start = ("--type", "WorkspaceWorkflow", "--task-queue", "workspaces", "--input", "{}")
    temporal(stack, "workflow", "start", *id_, *start)
    await console.until_phase(workspace, Phase.ONLINE)
    temporal(stack, "workflow", "signal", *id_, "--name", "recreate")
    await console.until_phase(workspace, Phase.ONLINE, generation=2)

    asked = '{"requested_by": "admin:alice", "observed_generation": 1}'
    answer = temporal(
        stack, "workflow", "update", "execute", *id_, "--name", "request_recreate", "--input", asked
    )
    assert "stale" in answer

    async def told() -> str:
        return temporal(stack, "workflow", "metadata", *id_)

    # A box may briefly be too slow for its heartbeats.
    await eventually(told, lambda output: "| `HeartbeatFresh` | true |" in output)
    query = f'WorkspacePhase = "online" AND WorkspaceGeneration = 2 AND WorkflowId = "{workspace}"'

    async def listed() -> str:
        return temporal(stack, "workflow", "list", "--query", query)

    assert workspace in await eventually(listed, lambda output: workspace in output)


async def test_an_exported_history_replays_and_names_who_asked_and_what_became_of_it(
    stack: Stack, console: Console, wire: Wire, workspace: str, tmp_path: Path
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    with wire.interfere(workspace, "/registry/register", times=1000, delay=True):  # until all have requested
        await console.signal(workspace, requested_by=REQUESTERS[0], observed_generation=1)
        await console.signal(workspace, requested_by=REQUESTERS[1], observed_generation=1)
        await console.ask(workspace, requested_by=REQUESTERS[2], observed_generation=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    for requester in REQUESTERS:
        await console.signal(workspace, requested_by=requester, observed_generation=1)

    async def recorded() -> int:
        return len(await console.rows("SELECT 1 FROM requests WHERE workspace_id = %s", workspace))

    await eventually(recorded, lambda number: number == 6)

    exported = tmp_path / "history.json"
    show = ("workflow", "show", "--workflow-id", workspace, "--output", "json")
    exported.write_text(temporal(stack, *show))
    from_file = onebox("replay", str(exported))
    from_server = onebox("replay", workspace, TEMPORAL_ADDRESS=stack.temporal_address)
    for replayed in (from_file, from_server):
        assert replayed.returncode == 0, replayed.stderr
        assert "deterministic under this code" in replayed.stdout
        told = [line for line in replayed.stdout.splitlines() if "  request  " in line]
        for requester in REQUESTERS:
            mine = [line for line in told if f"by {requester}:" in line]
            assert len(mine) == 2
            assert "STALE" in mine[1]
        assert sum("ACCEPTED" in line for line in told) == 1
        assert sum("JOINED" in line for line in told) == 2
        assert "launch (generation 2, attempt 1) done" in replayed.stdout


def test_replay_says_what_is_wrong_with_what_it_was_given(stack: Stack, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"events": []}')
    for words, said in (
        ([str(broken)], "is not a workflow history"),
        ([str(tmp_path / "missing.json")], "cannot be read"),
        (["no-such-workspace"], "there is no workflow"),
    ):
        done = onebox("replay", *words, TEMPORAL_ADDRESS=stack.temporal_address)
        assert done.returncode == 2
        assert said in done.stderr


def test_settings_that_cannot_be_used_are_named(stack: Stack) -> None:
    missing = onebox("api", DATABASE_URL="", SERVER_KEYS="")
    assert missing.returncode == 2
    assert "DATABASE_URL" in missing.stderr
    assert "SERVER_KEYS" in missing.stderr
    short = onebox("api", **{**stack.environment, "SERVER_KEYS": "k1:abcd"})
    assert short.returncode == 2
    assert "SERVER_KEYS" in short.stderr
    assert "abcd" not in short.stderr
    unknown = onebox("fly")
    assert unknown.returncode == 2
    assert "unknown command 'fly'" in unknown.stderr


def test_dev_prints_one_line_of_json_and_leaves_no_process_behind(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "dev", "--json", "--free-ports", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout as output:
        told = json.loads(output.readline())
        assert set(told) == {
            "temporal",
            "temporal_ui",
            "register_api",
            "aws_endpoint",
            "database",
            "codec",
            "metrics",
            "operator_token",
            "state_dir",
            "pids",
        }
        family = psutil.Process(process.pid).children(recursive=True)
        assert {child.pid for child in family} >= set(told["pids"].values())
        process.send_signal(signal.SIGTERM)
        assert output.read() == ""
    assert process.wait(timeout=TIMEOUT_SECONDS) == 0
    _, alive = psutil.wait_procs(family, timeout=TIMEOUT_SECONDS)
    assert alive == []


async def kept(directory: Path, *, new: bool) -> str | None:
    """The instance of a workspace that is online on a stack with this data, with a new heartbeat."""
    settings = {"HEARTBEAT_SECONDS": "0.3", "HEARTBEAT_STALE_SECONDS": "6"}
    with hurried(settings, directory) as stack:
        async with connected(stack) as console:
            if new:
                await console.start("ws-kept")
            status = await console.until_phase("ws-kept", Phase.ONLINE)
            first = str((await console.record("ws-kept"))["last_heartbeat_at"])
            await eventually(
                lambda: console.record("ws-kept"), lambda record: str(record["last_heartbeat_at"]) > first
            )
            assert console.aws.counts("ws-kept").launches == 1
            return status.instance_id


@pytest.mark.slow
async def test_everything_is_kept_across_a_restart_of_the_stack(tmp_path: Path) -> None:
    before = await kept(tmp_path, new=True)
    assert before is not None
    assert await kept(tmp_path, new=False) == before


async def test_the_documented_watchdog_in_a_few_lines_of_python_requests_a_recreate(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    program = block(MESSAGES, "python", "my-watchdog").replace("127.0.0.1:7233", stack.temporal_address)
    # Its exit code says nothing: the SDK sometimes crashes at the interpreter's end, after its work is done.
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, workspace, "1")
    await asyncio.wait_for(child.wait(), TIMEOUT_SECONDS)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    [request] = await console.requests(workspace)
    assert (request.requested_by, request.outcome) == ("my-watchdog", OutcomeKind.ACCEPTED)


async def test_the_watchdogs_schedule_is_listed_paused_and_resumed_as_documented(
    stack: Stack, console: Console
) -> None:
    listed, pause, unpause, rounds = block(RECOVERY, "sh", "onebox-watchdog").splitlines()

    def say(line: str) -> str:
        return temporal(stack, *shlex.split(line)[1:])

    async def standing(is_so: Callable[[Schedule], bool]) -> Schedule:
        """The schedule, once the condition holds; the server applies changes asynchronously."""

        async def look() -> Schedule:
            return (await handle.describe()).schedule

        return await eventually(look, is_so)

    # A worker creates it shortly after its start; listings lag behind.
    await eventually(lambda: asyncio.to_thread(say, listed), lambda said: WATCHDOG_SCHEDULE in said)
    handle = console.client.get_schedule_handle(WATCHDOG_SCHEDULE)
    say(pause)
    paused = (await standing(lambda it: it.state.paused)).state
    assert paused.note == "migrating the network"
    say(unpause)
    await standing(lambda it: not it.state.paused)
    await eventually(lambda: asyncio.to_thread(say, rounds), lambda said: "WatchdogWorkflow" in said)
