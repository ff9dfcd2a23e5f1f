"""Boxes that lose answers, crash or double their calls get back to a live token; old boxes never do."""

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from devstack.boxes import BoxView
from devstack.console import JSON, Console, eventually
from devstack.stack import Stack
from store.credentials import ServerKeys
from tests.integration.conftest import CANARY_SECRET_KEY
from tests.integration.wire import Wire
from workflows.state import Phase

pytestmark = pytest.mark.anyio

REGISTER = "/registry/register"


def bootstrap_secret(workspace: str, generation: int) -> str:
    """What the box of a generation has in its user data."""
    keys = ServerKeys.parse(f"k1:{CANARY_SECRET_KEY}")
    return keys.bootstrap_secret(workspace, generation, key_id="k1")


async def box_of(stack: Stack, workspace: str, *, starts: int = 1) -> BoxView:
    """The workspace's box, once its process has been started so often."""

    async def look() -> list[BoxView]:
        return [box for box in stack.boxes if box.workspace == workspace and box.starts >= starts]

    [box] = await eventually(look, lambda boxes: len(boxes) == 1)
    return box


def token_file(box: BoxView) -> Path:
    return Path(box.configs) / ".auth_token"


async def tokens(console: Console, workspace: str) -> list[JSON]:
    return await console.rows(
        "SELECT generation, state FROM tokens WHERE workspace_id = %s ORDER BY created_at", workspace
    )


async def test_a_lost_register_answer_ends_with_the_same_token(
    console: Console, wire: Wire, workspace: str
) -> None:
    with wire.interfere(workspace, REGISTER, times=2) as lost:
        await console.start(workspace)
        await console.until_phase(workspace, Phase.ONLINE)
    assert lost.statuses == [200, 200]
    assert await tokens(console, workspace) == [{"generation": 1, "state": "active"}]


async def test_a_box_killed_before_it_wrote_its_token_comes_back(
    stack: Stack, console: Console, wire: Wire, workspace: str
) -> None:
    with wire.interfere(workspace, REGISTER, hold=True) as held:
        await console.start(workspace)
        assert await asyncio.to_thread(held.caught.wait, 30)
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
    with wire.interfere(workspace, REGISTER, times=1000):  # the box itself hears nothing meanwhile
        await console.start(workspace)
        await console.until_phase(workspace, Phase.AWAITING_REGISTRATION)
        body = {"id": workspace, "url": "http://10.0.0.9:8000", "agent_card": {"name": "agent"}}
        headers = {"Authorization": f"Bearer {bootstrap_secret(workspace, 1)}"}
        async with httpx.AsyncClient(base_url=stack.register_api_url) as http:
            # The box's own calls have minted by now, though it heard nothing: race the mint itself.
            await console.rows(
                "UPDATE tokens SET state = 'revoked', nonce = NULL WHERE workspace_id = %s RETURNING 1",
                workspace,
            )
            answers = await asyncio.gather(
                *(http.post(REGISTER, json=body, headers=headers) for _ in range(16))
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
    old_token = token_file(await box_of(stack, workspace)).read_text().strip()
    held = console.aws.inject("TerminateInstances", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await asyncio.to_thread(console.aws.wait_until_held, held)
    old = {"id": workspace, "url": "http://10.6.6.6:6666/evil", "agent_card": {"name": "old"}}
    async with httpx.AsyncClient(base_url=stack.register_api_url) as http:
        for credential in (old_token, bootstrap_secret(workspace, 1)):
            headers = {"Authorization": f"Bearer {credential}"}
            register = await http.post(REGISTER, json=old, headers=headers)
            assert (register.status_code, register.json()["code"]) == (410, "superseded")
            assert register.json()["action"] == "shutdown"
        beat = await http.post(
            "/registry/heartbeat",
            json={"workspace_id": workspace},
            headers={"Authorization": f"Bearer {old_token}"},
        )
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
    # Script and runtime crash together with the file: nobody holds the token any longer.
    token_file(box).unlink()
    os.kill(box.pid, signal.SIGKILL)
    await box_of(stack, workspace, starts=2)
    await console.rows(
        "UPDATE tokens SET last_used_at = now() - interval '2 min' WHERE workspace_id = %s RETURNING 1",
        workspace,
    )

    async def written() -> str:
        return token_file(box).read_text() if token_file(box).exists() else ""

    assert await eventually(written, bool) != lost
    await eventually(
        lambda: console.live_tokens(workspace), lambda live: live == [{"generation": 1, "state": "active"}]
    )


async def test_a_silent_box_degrades_and_comes_back_with_its_beats(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.tell_box(workspace, "silent")
    await console.until_phase(workspace, Phase.DEGRADED)
    assert (await console.record(workspace))["phase"] == "degraded"
    await console.tell_box(workspace, "healthy")
    await console.until_phase(workspace, Phase.ONLINE)
    assert console.aws.counts(workspace).launches == 1


async def test_a_braindead_box_never_shows_online(console: Console, wire: Wire, workspace: str) -> None:
    # The runtime's own registration, which names its URL, is held until it has lost its brain.
    with wire.interfere(workspace, REGISTER, hold=True, containing="http://") as held:
        await console.start(workspace)
        assert await asyncio.to_thread(held.caught.wait, 30)
        await eventually(lambda: console.record(workspace), lambda record: bool(record["private_ip"]))
        await console.tell_box(workspace, "braindead")
    seen = await eventually(lambda: console.status(workspace), lambda status: status.last_error is not None)
    assert seen.last_error is not None
    assert seen.last_error.code.startswith("canary_")
    assert seen.phase is Phase.AWAITING_REGISTRATION
    await console.tell_box(workspace, "healthy")
    await console.until_phase(workspace, Phase.ONLINE)
