"""With PAYLOAD_KEYS, Temporal stores no clear text; operators, replay and open runs work as before.

It uses its own stack: one workspace lives through turning encryption on, and through a key rotation.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory

from devstack.console import Console, connected, eventually
from devstack.stack import Stack
from devstack.temporal import temporal_cli
from tests.integration.canary_failure import CANARY_FUNCTION, fail_with
from tests.integration.conftest import SETTINGS
from tests.integration.test_delegations import delegate, until_state
from tests.stacks import hurried
from workers.history.decryption import decrypt
from workflows.shared.encryption import Encryption, PayloadKeys
from workflows.workspace.enums import Phase
from workflows.workspace.messages import WorkspaceSpec
from workflows.workspace.requests import OutcomeKind

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FIRST, SECOND = f"first:{'1a' * 32}", f"second:{'2b' * 32}"
ALL = f"{SECOND},{FIRST}"
REASON = "canary-in-a-reason"
REQUEST_ID = "canary-in-an-id"
"""Activities receive it in a header."""
FAULT = "canary-in-an-error"
SPEC = "t3.canary"
SUMMARY = "launching the instance"
"""The UI shows it for an activity."""
CODEC = Encryption(PayloadKeys.parse(ALL))


@pytest.fixture(scope="module")
def encrypted() -> Iterator[Stack]:
    """Knows a second key already, as at the start of a rotation."""
    settings = SETTINGS | {"PAYLOAD_KEYS": f"{FIRST},{SECOND}"}
    with hurried(settings) as stack:
        yield stack


@pytest.fixture
async def operator(encrypted: Stack) -> AsyncIterator[Console]:
    async with connected(encrypted) as console:
        yield console


async def raw_histories(console: Console) -> dict[str, bytes]:
    """Every history as the server stores it."""
    found = dict[str, bytes]()
    async for execution in console.client.list_workflows():
        handle = console.client.get_workflow_handle(execution.id, run_id=execution.run_id)
        events = [event.SerializeToString() async for event in handle.fetch_history_events()]
        found[f"{execution.id} {execution.run_id}"] = b"".join(events)
    return found


async def history(console: Console, workflow_id: str) -> WorkflowHistory:
    return await console.client.get_workflow_handle(workflow_id).fetch_history()


def raw(history: WorkflowHistory) -> bytes:
    return b"".join(event.SerializeToString() for event in history.events)


def temporal(stack: Stack, *words: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    """The CLI, with the codec server if a token is given."""
    codec = ("--codec-endpoint", str(stack.codec_url), "--codec-auth", f"Bearer {token}") if token else ()
    return subprocess.run(
        [temporal_cli(), *words, "--address", stack.temporal_address, *codec],
        capture_output=True,
        text=True,
        timeout=60,
    )


def replay(source: str, stack: Stack, keys: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TEMPORAL_ADDRESS": stack.temporal_address, "PAYLOAD_KEYS": keys}
    command = [sys.executable, "-m", "cli", "replay", source]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)


@pytest.mark.timeout(400)  # a dozen commands, each in its own interpreter
async def test_operators_read_everything_and_temporal_nothing(
    encrypted: Stack, operator: Console, tmp_path: Path
) -> None:
    stack, token, ws = encrypted, encrypted.operator_token, "ws-encrypted"
    other, broken = f"{ws}-other", f"{ws}-broken"
    await operator.start(ws, WorkspaceSpec(instance_types=("t3.small", SPEC)))
    await operator.start(other)
    operator.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, message=FAULT, workspace=broken
    )
    await operator.start(broken)
    await operator.until_phase(broken, Phase.FAILED)
    for workspace in (ws, other):
        await operator.until_phase(workspace, Phase.ONLINE)
    await operator.signal(
        ws, requested_by="admin:alice", reason=REASON, request_id=REQUEST_ID, observed_generation=1
    )
    await operator.until_phase(ws, Phase.ONLINE, generation=2)
    delegation = await delegate(operator, ws, other, task="count the sheep")
    await until_state(operator, ws, delegation, "processed")

    # The CLI, with and without the codec server.
    asked = ("workflow", "query", "--workflow-id", ws, "--type", "requests", "--output", "json")
    shown = temporal(stack, *asked, token=token)
    assert shown.returncode == 0, shown.stderr
    assert REASON in shown.stdout
    assert REASON not in temporal(stack, *asked).stdout
    refused = temporal(stack, *asked, token="wrong")
    assert REASON not in refused.stdout
    assert refused.returncode != 0
    again = temporal(
        stack,
        *("workflow", "update", "execute", "--workflow-id", ws, "--name", "request_recreate"),
        *("--input", json.dumps({"requested_by": "admin:bob", "reason": REASON, "observed_generation": 1})),
        token=token,
    )
    assert again.returncode == 0, again.stderr
    assert "stale" in again.stdout

    async def metadata() -> str:
        return temporal(stack, "workflow", "metadata", "--workflow-id", ws, token=token).stdout

    # On a busy machine, heartbeats may arrive too late to be fresh.
    await eventually(metadata, lambda shown: "| `HeartbeatFresh` | true |" in shown)

    # Replay: from the server, and from CLI exports, encrypted or not.
    show = ("workflow", "show", "--workflow-id", ws, "--output", "json")
    sealed, clear = tmp_path / "sealed.json", tmp_path / "clear.json"
    sealed.write_text(temporal(stack, *show).stdout)
    clear.write_text(temporal(stack, *show, token=token).stdout)
    for source, keys in ((ws, ALL), (str(sealed), ALL), (str(clear), "")):
        told = replay(source, stack, keys)
        assert told.returncode == 0, told.stderr
        assert "deterministic under this code" in told.stdout
        assert REASON in told.stdout
    told = replay(str(sealed), stack, "")
    assert told.returncode == 2
    assert "key 'first', which is not in PAYLOAD_KEYS" in told.stderr

    # The server's data.
    async def recorded() -> list[object]:
        return list(await operator.rows("SELECT 1 FROM requests WHERE workspace_id = %s", ws))

    await eventually(recorded, lambda rows: len(rows) == 2)
    for name, content in (await raw_histories(operator)).items():
        for canary in (REASON, REQUEST_ID, FAULT, SPEC, "requested_by", SUMMARY):
            assert canary.encode() not in content, f"{canary} in the history of {name}"
    lines = [line for line in stack.log("worker").read_text().splitlines() if REQUEST_ID in line]
    assert any('"activity": "launch"' in line for line in lines)
    opened = await history(operator, broken)
    await decrypt(opened, CODEC)
    assert FAULT.encode() in raw(opened)
    log = stack.log("codec").read_text()
    assert "codec.decoded" in log
    for secret in (REASON, token):
        assert secret not in log


async def test_a_failures_text_and_stack_trace_are_not_on_the_server(operator: Console) -> None:
    failed = await fail_with(operator.client, "canary-failure-encrypted", FAULT)
    for canary in (FAULT, CANARY_FUNCTION):
        assert canary.encode() not in raw(failed)
    await decrypt(failed, CODEC)
    for canary in (FAULT, CANARY_FUNCTION):
        assert canary.encode() in raw(failed)


@pytest.mark.timeout(300)  # three generations
async def test_a_key_is_rotated_and_encryption_switched_while_a_run_is_open(
    encrypted: Stack, operator: Console
) -> None:
    ws, stack = "ws-rotated", encrypted
    steps = ((f"off,{FIRST}", "clear"), (f"{FIRST},{SECOND}", "first"), (ALL, "second"))
    for generation, (keys, marker) in enumerate(steps, start=1):
        stack.environment["PAYLOAD_KEYS"] = keys
        await asyncio.to_thread(stack.restart, "worker")
        async with connected(stack, payload_keys=keys) as console:
            if generation == 1:
                await console.start(ws)
            else:
                reason = f"canary-{marker}"
                outcome = await console.ask(ws, requested_by="admin:a", reason=reason, observed_generation=0)
                assert outcome.outcome is OutcomeKind.STALE
                await console.signal(
                    ws, requested_by="admin:a", reason=reason, observed_generation=generation - 1
                )
            await console.until_phase(ws, Phase.ONLINE, generation=generation)
    content = raw(await history(operator, ws))
    assert b"instance_types" in content  # from before the switch
    assert b"canary-first" not in content
    assert b"canary-second" not in content
    for key_id in (b"first", b"second"):
        assert b"encryption-key-id\x12" + bytes([len(key_id)]) + key_id in content
    told = await asyncio.to_thread(replay, ws, stack, ALL)
    assert told.returncode == 0, told.stderr
    assert "canary-second" in told.stdout
