"""Boxes that lose responses, crash or repeat calls recover a live token; superseded boxes never do."""

import asyncio
import os
import signal
from pathlib import Path

import httpx2
import psutil
import pytest

from devstack.boxes import BoxView
from devstack.console import JSON, TIMEOUT_SECONDS, Console, call_with_retries, eventually
from devstack.stack import Stack
from store.registration.credentials import ServerKeys
from tests.integration.watchdog import CANARY_SECRET_KEY
from tests.integration.wire import Wire
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio

REGISTER = "/registry/register"

CALL_SECONDS = 60.0
"""How long a response may take on a slow machine before it is of no use."""


def bootstrap_secret(workspace: str, generation: int) -> str:
    """The bootstrap environment from the user data of a generation's box."""
    keys = ServerKeys.parse(f"k1:{CANARY_SECRET_KEY}")
    return keys.bootstrap_secret(workspace, generation, key_id="k1")


def calling(stack: Stack, bearer: str) -> httpx2.AsyncClient:
    """Calls the register API with that credential."""
    headers = {"Authorization": f"Bearer {bearer}"}
    return httpx2.AsyncClient(base_url=stack.register_api_url, headers=headers, timeout=CALL_SECONDS)


async def box_of(stack: Stack, workspace: str, *, starts: int = 1) -> BoxView:
    """The workspace's box, once its process has started this often."""

    async def look() -> list[BoxView]:
        return [box for box in stack.boxes if box.workspace == workspace and box.starts >= starts]

    [box] = await eventually(look, lambda boxes: len(boxes) == 1)
    return box


async def suspended(*processes: psutil.Process) -> None:
    """All of their processes are stopped by SIGSTOP."""
    for process in processes:
        process.suspend()

    async def states() -> set[str]:
        return {process.status() for process in processes}

    await eventually(states, lambda seen: seen == {psutil.STATUS_STOPPED})


def token_file(box: BoxView) -> Path:
    return Path(box.configs) / ".auth_token"


async def tokens(console: Console, workspace: str) -> list[JSON]:
    return await console.rows(
        "SELECT generation, state FROM tokens WHERE workspace_id = %s ORDER BY created_at", workspace
    )


async def test_a_lost_register_answer_ends_with_the_same_token(
    console: Console, wire: Wire, workspace: str
) -> None:
    with wire.interfere(workspace, REGISTER, times=1000) as lost:

        async def granted() -> int:
            return lost.statuses.count(200)  # others are told that the launch is not recorded yet

        await console.start(workspace)
        await eventually(granted, lambda number: number >= 2)
    await console.until_phase(workspace, Phase.ONLINE)
    assert await tokens(console, workspace) == [{"generation": 1, "state": "active"}]


async def test_a_box_killed_before_it_wrote_its_token_comes_back(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    # All of its calls, because it retries after a timeout.
    with wire.interfere(workspace, REGISTER, times=1000, hold=True) as held:

        async def granted() -> bool:
            return 200 in held.statuses  # before that, its launch may not be recorded yet

        await console.start(workspace)
        await eventually(granted, bool)
        box = await box_of(stack, workspace)
        assert not token_file(box).exists()
        os.kill(box.pid, signal.SIGKILL)
    await console.until_phase(workspace, Phase.ONLINE)
    assert (await box_of(stack, workspace, starts=2)).instance_id == box.instance_id
    assert await tokens(console, workspace) == [{"generation": 1, "state": "active"}]
    assert console.aws.counts(workspace).launches == 1


async def test_a_box_killed_after_it_wrote_its_token_comes_back(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    box = await box_of(stack, workspace)
    token = token_file(box).read_text()
    assert token_file(box).stat().st_mode & 0o777 == 0o600
    os.kill(box.pid, signal.SIGKILL)
    again = await box_of(stack, workspace, starts=2)
    before = (await console.record(workspace))["last_heartbeat_at"]
    await eventually(
        lambda: console.record(workspace), lambda record: str(record["last_heartbeat_at"]) > str(before)
    )
    assert token_file(again).read_text() == token
    assert await tokens(console, workspace) == [{"generation": 1, "state": "active"}]


async def test_16_registers_at_once_give_one_token(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    with wire.interfere(workspace, REGISTER, times=1000):  # the box itself gets no response meanwhile
        await console.start(workspace)
        await console.until_phase(workspace, Phase.AWAITING_REGISTRATION)
        body: JSON = {"id": workspace, "url": "http://10.0.0.9:8000", "agent_card": {"name": "agent"}}
        async with calling(stack, bootstrap_secret(workspace, 1)) as http:
            # The box's own calls have minted by now, without a response: race the mint itself.
            await console.rows(
                "UPDATE tokens SET state = 'revoked', nonce = NULL WHERE workspace_id = %s RETURNING 1",
                workspace,
            )
            answers = await asyncio.gather(
                *(call_with_retries(http, "POST", REGISTER, body) for _ in range(16))
            )
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["auth_token"] for answer in answers}) == 1
    await console.until_phase(workspace, Phase.ONLINE)
    assert await console.live_tokens(workspace) == [{"generation": 1, "state": "active"}]


async def test_an_old_box_that_keeps_calling_gets_410_and_changes_nothing(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    box = await box_of(stack, workspace)
    old_token = token_file(box).read_text().strip()
    # Its script would power it off once superseded, possibly before the workflow terminates it.
    await suspended(psutil.Process(box.pid))
    held = console.aws.inject("TerminateInstances", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    old: JSON = {"id": workspace, "url": "http://10.6.6.6:6666/evil", "agent_card": {"name": "old"}}
    for credential in (old_token, bootstrap_secret(workspace, 1)):
        async with calling(stack, credential) as http:
            register = await call_with_retries(http, "POST", REGISTER, old)
        assert (register.status_code, register.json()["code"]) == (410, "superseded")
        assert register.json()["action"] == "shutdown"
    async with calling(stack, old_token) as http:
        beat = await call_with_retries(http, "POST", "/registry/heartbeat", {"workspace_id": workspace})
    assert (beat.status_code, beat.json()["code"]) == (410, "superseded")
    console.aws.release(held)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    record = await console.record(workspace)
    assert "10.6.6.6" not in str(record)
    assert console.aws.counts(workspace).dns_changes == 2
    assert await console.live_tokens(workspace) == [{"generation": 2, "state": "active"}]


async def test_a_box_that_lost_its_token_registers_again(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    box = await box_of(stack, workspace)
    lost = token_file(box).read_text()
    # Script and runtime crash together with the file, so that no process has the token. They are stopped
    # first, because the script would rewrite the file.
    script = psutil.Process(box.pid)
    await suspended(script, *script.children(recursive=True))
    token_file(box).unlink()

    async def forgotten() -> None:
        await console.rows(
            "UPDATE tokens SET last_used_at = now() - interval '2 min'"
            " WHERE workspace_id = %s AND last_used_at > now() - interval '1 min' RETURNING 1",
            workspace,
        )

    await forgotten()
    os.kill(box.pid, signal.SIGKILL)
    await box_of(stack, workspace, starts=2)

    async def written() -> str:
        await forgotten()  # a heartbeat in progress at the crash may be accepted later
        return token_file(box).read_text() if token_file(box).exists() else ""

    # If it called in between, it was asked to retry in a minute.
    assert await eventually(written, bool) != lost
    await eventually(
        lambda: console.live_tokens(workspace), lambda live: live == [{"generation": 1, "state": "active"}]
    )


async def test_a_silent_box_degrades_and_comes_back_with_its_beats(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.set_box_mode(workspace, "silent")
    await console.until_phase(workspace, Phase.DEGRADED)
    # The workflow reports it first and then records it.
    await eventually(lambda: console.record(workspace), lambda record: record["phase"] == "degraded")
    await console.set_box_mode(workspace, "healthy")
    await console.until_phase(workspace, Phase.ONLINE)
    assert console.aws.counts(workspace).launches == 1


async def test_a_braindead_box_never_shows_online(console: Console, wire: Wire, workspace: str) -> None:
    # The runtime's registration, which names its URL, is delayed until it is braindead; all of its calls are,
    # because it retries after a timeout.
    with wire.interfere(workspace, REGISTER, times=1000, hold=True, containing="http://"):
        await console.start(workspace)
        await eventually(
            lambda: console.record(workspace),
            lambda record: bool(record.get("private_ip") and record.get("url")),
        )
        await console.set_box_mode(workspace, "braindead")
    seen = await eventually(lambda: console.status(workspace), lambda status: status.last_error is not None)
    assert seen.last_error is not None
    assert seen.last_error.code.startswith("canary_")
    assert seen.phase is Phase.AWAITING_REGISTRATION
    await console.set_box_mode(workspace, "healthy")
    await console.until_phase(workspace, Phase.ONLINE)
