"""Why a workspace is not online stands on its record, in words; superseded boxes that call are ended."""

import asyncio
from datetime import timedelta

import boto3
import httpx
import pytest
from botocore.config import Config

from devstack.console import JSON, Console, eventually
from devstack.stack import Stack
from tests.integration.test_registering import REGISTER, bootstrap_secret
from tests.integration.wire import Wire
from workflows.messages import WorkspaceSpec, WorkspaceStatus
from workflows.state import CanaryPolicy, Phase, Step

pytestmark = pytest.mark.anyio

BEAT = {"error_rate": 0.0, "sample_error": "", "active_tasks": 0, "current_task": "", "uptime_seconds": 1}


async def registered_condition(console: Console, workspace: str) -> JSON:
    record = await console.record(workspace)
    conditions = record["conditions"]
    assert isinstance(conditions, list)
    return next((one for one in conditions if one["type"] == "Registered"), {})


def error_code(status: WorkspaceStatus) -> str:
    return "" if status.last_error is None else status.last_error.code


async def test_a_box_that_never_calls_and_one_without_evidence_are_told_apart(
    stack: Stack, console: Console, workspace: str
) -> None:
    await asyncio.to_thread(stack.stop, "boxes")
    try:
        await console.start(workspace, WorkspaceSpec(register_deadline_seconds=3, canary=CanaryPolicy.OFF))
        seen = await eventually(lambda: console.status(workspace), lambda it: error_code(it) != "")
        assert error_code(seen) == "never_called"
        assert seen.last_error is not None
        assert seen.last_error.phase is Step.AWAIT_REGISTRATION
        # It is recreated meanwhile, and the reason stays.
        await console.until_phase(workspace, Phase.AWAITING_REGISTRATION, generation=2)
        record = await eventually(
            lambda: console.record(workspace),
            lambda it: it["generation"] == 2 and bool(it["private_ip"]),
        )
        assert isinstance(record["last_error"], dict)
        assert record["last_error"]["code"] == "never_called"

        async with httpx.AsyncClient(
            base_url=stack.register_api_url,
            transport=httpx.AsyncHTTPTransport(local_address=str(record["private_ip"])),
        ) as runtime:
            answer = await runtime.post(REGISTER, json={"id": workspace, "url": "http://x:1"})
            assert answer.status_code == 401
        condition = await registered_condition(console, workspace)
        assert (condition["status"], condition["reason"]) == ("false", "CalledWithoutEvidence")
        assert f"from {record['private_ip']} (its own address)" in str(condition["message"])
        seen = await eventually(
            lambda: console.status(workspace), lambda it: error_code(it) == "called_without_evidence"
        )
        assert seen.phase is Phase.FAILED  # the spacing of automatic recreates
    finally:
        await asyncio.to_thread(stack.start, "boxes")
    status = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert status.last_error is None


async def test_a_token_that_nobody_uses_is_the_reason(console: Console, wire: Wire, workspace: str) -> None:
    with wire.interfere(workspace, REGISTER, times=1000):
        await console.start(workspace, WorkspaceSpec(register_deadline_seconds=2, canary=CanaryPolicy.OFF))
        seen = await eventually(lambda: console.status(workspace), lambda it: error_code(it) != "")
        assert error_code(seen) == "token_never_used"
        condition = await eventually(
            lambda: registered_condition(console, workspace), lambda it: it.get("reason") == "TokenNeverUsed"
        )
        assert condition["status"] == "true"
    await console.until_phase(workspace, Phase.ONLINE)


async def test_a_lost_credential_shows_until_the_box_is_back(
    stack: Stack, console: Console, workspace: str
) -> None:
    await console.start(workspace, WorkspaceSpec(canary=CanaryPolicy.OFF))
    await console.until_phase(workspace, Phase.ONLINE)
    await console.tell_box(workspace, "silent")  # its own beats would count in between
    headers = {"Authorization": f"Bearer {bootstrap_secret(workspace, 1)}"}
    async with httpx.AsyncClient(base_url=stack.register_api_url) as runtime:
        for _ in range(3):
            answer = await runtime.post(
                "/registry/heartbeat", json={"workspace_id": workspace, **BEAT}, headers=headers
            )
            assert (answer.status_code, answer.json()["code"]) == (401, "reregister_required")
    status = await console.until_phase(workspace, Phase.DEGRADED)
    assert error_code(status) == "credential_lost"
    await console.tell_box(workspace, "healthy")
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
    # Long after its fence, as a box on a lost host would come back.
    await console.rows(
        "UPDATE generations SET superseded_at = superseded_at - %s WHERE workspace_id = %s RETURNING 1",
        timedelta(minutes=10),
        workspace,
    )
    headers = {"Authorization": f"Bearer {bootstrap_secret(workspace, 1)}"}
    async with httpx.AsyncClient(base_url=stack.register_api_url) as http:
        answer = await http.post(REGISTER, json={"id": workspace, "url": "http://x:1"}, headers=headers)
    assert (answer.status_code, answer.json()["action"]) == (410, "shutdown")

    async def states() -> dict[str, str]:
        return {it.instance_id: it.state for it in console.aws.instances(workspace)}

    await eventually(states, lambda it: it[ghost] == "terminated")
    status = await console.status(workspace)
    assert (status.phase, status.generation) == (Phase.ONLINE, 2)
    assert [state for state in (await states()).values() if state == "running"] == ["running"]


def came_back(stack: Stack, console: Console, workspace: str) -> str:
    """An instance of generation 1 that runs although it was confirmed to be gone."""
    info = console.aws.info()
    ec2 = boto3.client(
        "ec2",
        endpoint_url=stack.aws_url,
        config=Config(region_name=info.region),
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    tags = {
        "onebox:owner": stack.environment["ONEBOX_OWNER"],
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
