"""Secrets are in no history, log, error or listing; the tests search the raw bytes.

The first test runs after all others of this folder (see `conftest`), and searches their traces too.
"""

from pathlib import Path

import boto3
import httpx2
import pytest
from botocore.config import Config

from devstack.console import Console, eventually
from devstack.stack import Stack
from tests.integration.canary_failure import CANARY_FUNCTION, fail_with
from tests.integration.collector import Collector
from tests.integration.test_registering import bootstrap_secret
from tests.integration.watchdog import CANARY_SECRET_KEY
from workers.history.decryption import decrypt, decrypt_message
from workflows.shared.encryption import Encryption, PayloadKeys
from workflows.workspace.enums import Phase

pytestmark = pytest.mark.anyio


async def all_secrets(stack: Stack, console: Console) -> set[bytes]:
    """The server key, every bootstrap secret, every token of a box, the operator token."""
    secrets = {CANARY_SECRET_KEY, stack.operator_token}
    for row in await console.rows("SELECT workspace_id, generation FROM generations"):
        secrets.add(bootstrap_secret(str(row["workspace_id"]), int(str(row["generation"]))))
    tokens = tokens_on_boxes(stack)
    assert tokens
    return {secret.encode() for secret in secrets | tokens}


def tokens_on_boxes(stack: Stack) -> set[str]:
    """The tokens in the files of all boxes, including ended ones."""
    files = stack.state_dir.glob("boxes/*/configs/.auth_token")
    return {text for file in files if (text := file.read_text().strip())}


def files_and_command_lines(stack: Stack) -> dict[str, bytes]:
    """Every log and every command line of the stack's processes, by name."""
    logs = [*stack.log("").parent.glob("*.log"), *stack.state_dir.glob("boxes/*/box.log")]
    pids = {**stack.pids, **{f"box {box.instance_id}": box.pid for box in stack.boxes}}
    seen = {str(log): log.read_bytes() for log in logs}
    return seen | {f"the command line of {name}": command_line(pid) for name, pid in pids.items()}


def command_line(pid: int) -> bytes:
    """The `ps` line of a process; empty if it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def found(secrets: set[bytes], haystack: bytes, where: str) -> list[str]:
    return [f"a secret in {where}" for secret in secrets if secret in haystack]


async def test_no_secret_stands_where_it_must_not(
    stack: Stack, console: Console, collector: Collector, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    api_token = await console.call("POST", f"/workspaces/{workspace}/tokens", {"name": "a tool"})
    assert api_token.status_code == 201
    codec = Encryption(PayloadKeys.parse(stack.payload_keys))
    secrets, leaks, histories = await all_secrets(stack, console), list[str](), 0
    secrets.add(api_token.json()["auth_token"].encode())
    assert len(secrets) > 5

    async for execution in console.client.list_workflows():
        handle = console.client.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events():
            leaks += found(secrets, event.SerializeToString(), f"the history of {execution.id}")
            await decrypt_message(event, codec)
            leaks += found(secrets, event.SerializeToString(), f"the history of {execution.id}, decrypted")
        histories += 1
    assert histories > 0

    seen = files_and_command_lines(stack)
    assert len(seen) > 10
    for name, content in seen.items():
        leaks += found(secrets, content, name)

    async def traces() -> bytes:
        return collector.raw

    assert await eventually(traces, bool)
    leaks += found(secrets, collector.raw, "the traces")
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
        for url in stack.metrics_urls.values():
            leaks += found(secrets, (await http.get(url)).content, "the metrics")

    ec2 = boto3.client(
        "ec2",
        endpoint_url=stack.aws_url,
        config=Config(region_name=console.aws.info().region),
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    leaks += found(secrets, repr(ec2.describe_instances()).encode(), "DescribeInstances")
    ec2.close()

    dump = await console.rows(
        "SELECT (SELECT json_agg(t) FROM tokens t)::text AS t,"
        " (SELECT json_agg(l) FROM launches l)::text,"
        " (SELECT json_agg(g) FROM generations g)::text AS g,"
        " (SELECT json_agg(w) FROM workspaces w)::text AS w,"
        " (SELECT json_agg(a) FROM api_tokens a)::text AS a, (SELECT json_agg(u) FROM audit_log u)::text AS u"
    )
    leaks += found(secrets, repr(dump).encode(), "the database")

    assert leaks == []


async def test_the_search_itself_finds_a_secret(stack: Stack, console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.signal(workspace, reason=bootstrap_secret(workspace, 1))
    await console.until_phase(workspace, Phase.ONLINE)
    history = await console.workflow(workspace).fetch_history()
    await decrypt(history, Encryption(PayloadKeys.parse(stack.payload_keys)))
    raw = b"".join(event.SerializeToString() for event in history.events)
    assert found({bootstrap_secret(workspace, 1).encode()}, raw, "history") != []


async def test_what_a_failure_and_a_request_say_is_on_the_server_unless_payloads_are_encrypted(
    stack: Stack, console: Console, workspace: str
) -> None:
    # `test_encryption` checks encrypted payloads; without encryption, this shows that the search works.
    canary = "canary-in-clear-text"
    await console.start(workspace)
    await console.ask(workspace, requested_by="admin:a", reason=canary, observed_generation=0)
    histories = {
        "a failure": (await fail_with(console.client, f"{workspace}-failing", canary), CANARY_FUNCTION),
        "a request": (await console.workflow(workspace).fetch_history(), canary),
    }
    for name, (history, text) in histories.items():
        raw = b"".join(event.SerializeToString() for event in history.events)
        leaks = found({canary.encode(), text.encode()}, raw, name)
        assert bool(leaks) == (not stack.payload_keys)
