"""The record explains why a workspace is not online; superseded boxes that call are terminated."""

import asyncio
from datetime import timedelta

import boto3
import httpx2
import pytest
from botocore.config import Config

from devstack.console import JSON, TIMEOUT_SECONDS, Console, call_with_retries, eventually
from devstack.stack import Stack
from tests.integration.test_registering import CALL_SECONDS, REGISTER, bootstrap_secret, calling
from workflows.workspace.enums import CanaryPolicy, Phase, Step
from workflows.workspace.messages import WorkspaceSpec, WorkspaceStatus

pytestmark = pytest.mark.anyio

BEAT = {"error_rate": 0.0, "sample_error": "", "active_tasks": 0, "current_task": "", "uptime_seconds": 1}

ADDRESS = "ChangeResourceRecordSets"
"""While it is held, a box has no address yet, so its registration deadline has not started."""


async def registered_condition(console: Console, workspace: str) -> JSON:
    record = await console.record(workspace)
    conditions = record["conditions"]
    assert isinstance(conditions, list)
    return next((one for one in conditions if one["type"] == "Registered"), {})


def error_code(status: WorkspaceStatus) -> str:
    return "" if status.last_error is None else status.last_error.code


def recorded_code(record: JSON) -> str:
    error = record["last_error"]
    return str(error["code"]) if isinstance(error, dict) else ""


async def test_a_box_that_never_calls_and_one_without_evidence_get_different_codes(
    stack: Stack, console: Console, workspace: str
) -> None:
    await asyncio.to_thread(stack.stop, "boxes")
    try:
        first = console.aws.inject(ADDRESS, "hold", times=1, workspace=workspace)
        await console.start(workspace, WorkspaceSpec(register_deadline_seconds=3, canary=CanaryPolicy.OFF))
        await asyncio.to_thread(console.aws.wait_until_held, first, seconds=TIMEOUT_SECONDS)
        second = console.aws.inject(ADDRESS, "hold", times=None, workspace=workspace)
        console.aws.release(first)
        seen = await eventually(lambda: console.status(workspace), lambda it: error_code(it) != "")
        assert error_code(seen) == "never_called"
        assert seen.last_error is not None
        assert seen.last_error.phase is Step.AWAIT_REGISTRATION
        # It is recreated meanwhile; the reason stays.
        await asyncio.to_thread(console.aws.wait_until_held, second, seconds=TIMEOUT_SECONDS)
        seen = await console.status(workspace)
        assert (seen.phase, seen.generation) == (Phase.RECREATING, 2)
        assert error_code(seen) == "never_called"
        record = await eventually(
            lambda: console.record(workspace),
            lambda it: it["generation"] == 2 and bool(it["private_ip"]) and recorded_code(it) != "",
        )
        assert recorded_code(record) == "never_called"

        async with httpx2.AsyncClient(
            base_url=stack.register_api_url,
            transport=httpx2.AsyncHTTPTransport(local_address=str(record["private_ip"])),
            timeout=CALL_SECONDS,
        ) as runtime:
            answer = await call_with_retries(
                runtime, "POST", REGISTER, {"id": workspace, "url": "http://x:1"}
            )
            assert answer.status_code == 401
        condition = await registered_condition(console, workspace)
        assert (condition["status"], condition["reason"]) == ("false", "CalledWithoutEvidence")
        assert f"from {record['private_ip']} (its own address)" in str(condition["message"])
        console.aws.release(second)
        seen = await eventually(
            lambda: console.status(workspace),
            lambda it: error_code(it) == "called_without_evidence" and it.phase is Phase.FAILED,
        )
        assert seen.generation == 2  # the backoff of automatic recreates
        assert seen.last_error is not None
        assert seen.last_error.phase is Step.AWAIT_REGISTRATION
    finally:
        await asyncio.to_thread(stack.start, "boxes")
    status = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert status.last_error is None


async def test_a_lost_credential_shows_until_the_box_is_back(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(workspace, Phase.ONLINE)
    await console.set_box_mode(workspace, "silent")  # its own heartbeats would count in between
    async with calling(stack, bootstrap_secret(workspace, 1)) as runtime:
        body: JSON = {"workspace_id": workspace, **BEAT}
        for _ in range(3):
            answer = await call_with_retries(runtime, "POST", "/registry/heartbeat", body)
            assert (answer.status_code, answer.json()["code"]) == (401, "reregister_required")
    # On a slow machine, its silence may be detected first.
    status = await eventually(lambda: console.status(workspace), lambda it: error_code(it) != "")
    assert (status.phase, error_code(status)) == (Phase.DEGRADED, "credential_lost")
    await console.set_box_mode(workspace, "healthy")
    status = await console.until_phase(workspace, Phase.ONLINE)
    assert status.last_error is None
    assert status.generation == 1


async def test_a_superseded_box_that_calls_is_terminated(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace)
    await console.until_phase(workspace, Phase.ONLINE)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    ghost = await asyncio.to_thread(came_back, stack, console, workspace)
    # Long after its fence, like a box on a host that recovers.
    await console.rows(
        "UPDATE generations SET superseded_at = superseded_at - %s WHERE workspace_id = %s RETURNING 1",
        timedelta(minutes=10),
        workspace,
    )
    async with calling(stack, bootstrap_secret(workspace, 1)) as http:
        answer = await call_with_retries(http, "POST", REGISTER, {"id": workspace, "url": "http://x:1"})
    assert (answer.status_code, answer.json()["action"]) == (410, "shutdown")

    async def states() -> dict[str, str]:
        return {it.instance_id: it.state for it in console.aws.instances(workspace)}

    await eventually(states, lambda it: it[ghost] == "terminated")
    # A box may briefly be too slow for its heartbeats.
    status = await console.until_phase(workspace, Phase.ONLINE)
    assert status.generation == 2
    assert [state for state in (await states()).values() if state == "running"] == ["running"]


def came_back(stack: Stack, console: Console, workspace: str) -> str:
    """An instance of generation 1 that runs although its termination was confirmed."""
    info = console.aws.info()
    ec2 = boto3.client(
        "ec2",
        endpoint_url=stack.aws_url,
        config=Config(region_name=info.region),
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    tags = {
        "onebox:owner": stack.environment["CONTROL_PLANE_ID"],
        "onebox:workspace": workspace,
        "onebox:generation": "1",
        "onebox:attempt": "9",
    }
    launched = ec2.run_instances(
        ImageId=info.image_id,
        InstanceType="t3.small",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": key, "Value": tags[key]} for key in tags]}
        ],
    )
    ec2.close()
    return str(launched["Instances"][0]["InstanceId"])
