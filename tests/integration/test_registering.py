"""A silent box is degraded until it sends heartbeats; a braindead one is never online."""

from pathlib import Path

import httpx2
import psutil
import pytest

from devstack.boxes import BoxView
from devstack.console import JSON, Console, eventually
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
