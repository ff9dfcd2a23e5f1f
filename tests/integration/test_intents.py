"""Stop and delete during other operations leave nothing behind in AWS, DNS and tokens."""

import asyncio
from collections.abc import Awaitable, Callable

import boto3
import httpx2
import pytest
from botocore.config import Config
from temporalio.client import WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from devstack.console import TIMEOUT_SECONDS, Console, call_with_retries, eventually
from devstack.stack import Stack
from tests.integration.test_registering import box_of, token_file
from workflows.shared.names import TASK_QUEUE, WORKFLOW_TYPE
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

Midst = Callable[[Console, str], Awaitable[str | None]]
"""Brings a workspace into the state before the request; returns the fault to release afterwards."""


async def provisioning(console: Console, workspace: str) -> str:
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    await console.start(workspace)
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    assert (await console.status(workspace)).phase is Phase.PROVISIONING
    return held


async def recreating(console: Console, workspace: str) -> str:
    await online(console, workspace)
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    assert (await console.status(workspace)).phase is Phase.RECREATING
    return held


async def online(console: Console, workspace: str) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)


async def degraded(console: Console, workspace: str) -> None:
    await online(console, workspace)
    await console.set_box_mode(workspace, "silent")
    await console.until_phase(workspace, Phase.DEGRADED)


async def failed(console: Console, workspace: str) -> None:
    console.aws.inject(
        "RunInstances", "error", code="InvalidParameterValue", status=400, times=None, workspace=workspace
    )
    await console.start(workspace)
    await console.until_phase(workspace, Phase.FAILED)


MIDSTS: list[Midst] = [provisioning, recreating, online, degraded, failed]


async def leaves_nothing_alive(console: Console, workspace: str) -> None:
    """No instance is alive, and no token of its boxes is live."""
    assert console.aws.counts(workspace).alive_now == 0
    assert await console.live_tokens(workspace) == []
    assert console.aws.counts(workspace).max_alive_at_once <= 1


def names(stack: Stack, console: Console) -> list[str]:
    """All names in the zone."""
    info = console.aws.info()
    route53 = boto3.client(
        "route53",
        endpoint_url=stack.aws_url,
        config=Config(region_name=info.region),
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    pages = route53.get_paginator("list_resource_record_sets").paginate(HostedZoneId=info.hosted_zone_id)
    found = [record["Name"] for page in pages for record in page["ResourceRecordSets"]]
    route53.close()
    return found


@pytest.mark.parametrize("midst", MIDSTS, ids=lambda midst: midst.__name__)
async def test_delete_leaves_nothing_behind_and_cannot_be_undone(
    stack: Stack, console: Console, workspace: str, midst: Midst
) -> None:
    held = await midst(console, workspace)
    tool = await console.call("POST", f"/workspaces/{workspace}/tokens", {"name": "a tool"})
    assert tool.status_code == 201
    box_token = ""
    if midst is online:
        box_token = token_file(await box_of(stack, workspace)).read_text().strip()
    # Both at once: a workspace without resources is deleted quickly, and then accepts no request.
    asked = await asyncio.gather(
        *(console.ask(workspace, "request_delete", requested_by=by) for by in ("admin:alice", "admin:bob"))
    )
    assert {it.outcome for it in asked} <= {OutcomeKind.ACCEPTED, OutcomeKind.JOINED}
    if held is not None:
        console.aws.release(held)
    await asyncio.wait_for(console.workflow(workspace).result(), TIMEOUT_SECONDS)

    await leaves_nothing_alive(console, workspace)
    assert not [name for name in names(stack, console) if f"{workspace}." in name]
    rows = await console.rows(
        "SELECT 1 FROM api_tokens WHERE workspace_id = %s AND revoked_at IS NULL", workspace
    )
    assert rows == []
    for token in filter(None, (box_token, tool.json()["auth_token"])):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(
            base_url=stack.register_api_url, headers=headers, trust_env=False
        ) as http:
            state = await call_with_retries(http, "GET", f"/workspaces/{workspace}/state")
            assert state.status_code == 401 or state.json()["deleted"] is True
            beat = await call_with_retries(http, "POST", "/registry/heartbeat", {"workspace_id": workspace})
            assert beat.status_code in (401, 410)

    record = await console.record(workspace)
    assert (record["phase"], record["dns_name"]) == ("deleted", None)
    [tombstone] = await console.rows(
        "SELECT deleted_at IS NOT NULL AS dated, intent FROM workspaces WHERE workspace_id = %s", workspace
    )
    assert tombstone == {"dated": True, "intent": "delete"}

    launches = console.aws.counts(workspace).launches
    for name in ("recreate", "start", "stop"):
        with pytest.raises(RPCError) as refused:
            await console.signal(workspace, name, requested_by="admin:late")
        assert refused.value.status is RPCStatusCode.NOT_FOUND
    late = await console.client.start_workflow(
        WORKFLOW_TYPE,
        {},
        id=workspace,
        task_queue=TASK_QUEUE,
        start_signal="start",
        start_signal_args=[{"requested_by": "admin:late"}],
    )
    with pytest.raises(WorkflowFailureError, match="failed"):
        await late.result()
    assert console.aws.counts(workspace).launches == launches
    await leaves_nothing_alive(console, workspace)


@pytest.mark.parametrize("midst", [recreating, degraded, failed], ids=lambda midst: midst.__name__)
async def test_stop_terminates_the_box_in_any_phase_and_start_launches_another(
    console: Console, workspace: str, midst: Midst
) -> None:
    held = await midst(console, workspace)
    for _ in range(2):
        await console.signal(workspace, "stop", requested_by="admin:alice")
    if held is not None:
        console.aws.release(held)
    await console.until_phase(workspace, Phase.STOPPED)
    await leaves_nothing_alive(console, workspace)
    late = await console.ask(workspace, requested_by="watchdog", observed_generation=1)
    assert late.outcome in (OutcomeKind.REJECTED, OutcomeKind.STALE)
    if midst is failed:
        return  # EC2 still rejects its launch
    for _ in range(2):
        await console.ask(workspace, "request_start", requested_by="admin:alice")
    status = await console.until_phase(workspace, Phase.ONLINE)

    async def alive() -> list[str]:
        return [it.instance_id for it in console.aws.instances(workspace) if it.state == "running"]

    assert await eventually(alive, lambda it: len(it) == 1) == [status.instance_id]
    assert console.aws.counts(workspace).max_alive_at_once == 1
