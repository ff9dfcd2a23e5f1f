"""Invariants hold when processes are killed, responses lost and listings late during a recreate."""

import asyncio
import os
import signal

import boto3
import pytest
from botocore.config import Config

from devstack.console import TIMEOUT_SECONDS, Console, eventually
from devstack.stack import Stack
from workflows.workspace.enums import Phase
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio


async def online(console: Console, workspace: str) -> str:
    """Start a workspace with its first box. Returns the instance's ID."""
    await console.start(workspace)
    status = await console.until_phase(workspace, Phase.ONLINE)
    assert status.instance_id is not None
    return status.instance_id


async def recreated_once(console: Console, workspace: str) -> None:
    """Generation 2 is online after exactly one launch, and everything of generation 1 has ended."""
    status = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    counts = console.aws.counts(workspace)
    assert counts.launches == 2
    assert counts.max_alive_at_once == 1
    assert counts.dns_changes == 2
    [alive] = [it for it in console.aws.instances(workspace) if it.state in ("pending", "running")]
    assert alive.instance_id == status.instance_id
    tokens = await console.live_tokens(workspace)
    assert {token["generation"] for token in tokens} == {2}
    # A box without a timely registration response has retried; the earlier token is then being revoked.
    tokens = await eventually(lambda: console.live_tokens(workspace), lambda seen: len(seen) == 1)
    assert tokens == [{"generation": 2, "state": "active"}]


async def until_held(console: Console, held: str) -> None:
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)


async def test_a_worker_killed_between_the_launch_and_its_record_adopts_the_same_instance(
    stack: Stack, console: Console, workspace: str
) -> None:
    await online(console, workspace)
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await until_held(console, held)
    pid = stack.pids["worker"]
    os.kill(pid, signal.SIGKILL)
    console.aws.release(held)
    await asyncio.to_thread(stack.wait_ready, "worker", other_than=pid)
    await recreated_once(console, workspace)
    launches = await console.rows(
        "SELECT attempt FROM launches WHERE workspace_id = %s AND generation = 2", workspace
    )
    assert launches == [{"attempt": 1}]


async def test_a_lost_answer_of_run_instances_leaves_one_instance(console: Console, workspace: str) -> None:
    await online(console, workspace)
    lost = console.aws.inject("RunInstances", "lost_answer", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await asyncio.to_thread(console.aws.wait_until_used, lost, seconds=TIMEOUT_SECONDS)
    await recreated_once(console, workspace)


async def test_a_lost_answer_and_a_late_empty_listing_leave_one_instance_and_kill_none(
    console: Console, workspace: str
) -> None:
    await online(console, workspace)
    # Held before it is lost, so that no listing includes the instance before listings are late.
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    console.aws.inject("RunInstances", "lost_answer", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await until_held(console, held)
    late = console.aws.inject("DescribeInstances", "late_list", seconds=3, times=None, workspace=workspace)
    empty = console.aws.inject("DescribeInstances", "empty_list", times=2, workspace=workspace)
    console.aws.release(held)
    await recreated_once(console, workspace)
    assert console.aws.fault(late).used + console.aws.fault(empty).used > 0
    assert console.aws.counts(workspace).terminations == 1  # only the old one


async def test_a_temporal_server_killed_in_mid_recreate_finishes_by_itself(
    stack: Stack, console: Console, workspace: str
) -> None:
    await online(console, workspace)
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice")
    await until_held(console, held)
    await asyncio.to_thread(stack.kill, "temporal")
    console.aws.release(held)
    await asyncio.to_thread(stack.start, "temporal")
    await recreated_once(console, workspace)


async def test_a_database_killed_in_mid_recreate_finishes_by_itself(
    stack: Stack, console: Console, workspace: str
) -> None:
    await online(console, workspace)
    held = console.aws.inject("RunInstances", "hold", workspace=workspace)
    outcome = await console.ask(workspace, requested_by="admin:alice")
    await until_held(console, held)
    await asyncio.to_thread(stack.kill, "postgres")
    console.aws.release(held)
    await asyncio.to_thread(stack.start, "postgres")
    await recreated_once(console, workspace)
    assert outcome.outcome is OutcomeKind.ACCEPTED
    rows = await eventually(
        lambda: console.rows("SELECT outcome FROM requests WHERE workspace_id = %s", workspace),
        lambda rows: len(rows) >= 1,
    )
    assert rows == [{"outcome": "accepted"}]


async def test_throttling_slows_down_and_counts_as_nothing_else(console: Console, workspace: str) -> None:
    throttled = console.aws.inject(
        "RunInstances", "error", code="RequestLimitExceeded", status=503, times=2, workspace=workspace
    )
    await online(console, workspace)
    assert console.aws.fault(throttled).used == 2
    assert console.aws.counts(workspace).launches == 1
    launches = await console.rows("SELECT attempt FROM launches WHERE workspace_id = %s", workspace)
    assert launches == [{"attempt": 1}]


async def test_no_capacity_moves_to_the_next_zone(console: Console, workspace: str) -> None:
    subnets = tuple(console.aws.info().subnet_ids[:2])
    console.aws.inject(
        "RunInstances", "error", code="InsufficientInstanceCapacity", status=500, times=1, workspace=workspace
    )
    await console.start(workspace, WorkspaceSpec(subnet_ids=subnets))
    status = await console.until_phase(workspace, Phase.ONLINE)
    assert status.last_error is None
    rows = await console.rows(
        "SELECT attempt, capacity_error, request ->> 'SubnetId' AS subnet FROM launches"
        " WHERE workspace_id = %s ORDER BY attempt",
        workspace,
    )
    assert rows == [
        {"attempt": 1, "capacity_error": "InsufficientInstanceCapacity", "subnet": subnets[0]},
        {"attempt": 2, "capacity_error": None, "subnet": subnets[1]},
    ]


async def test_an_operator_replaces_an_instance_that_stays_pending(console: Console, workspace: str) -> None:
    console.aws.inject("RunInstances", "slow_change", seconds=3600, workspace=workspace)
    await console.start(workspace)
    await eventually(lambda: console.status(workspace), lambda it: it.instance_id is not None)
    outcome = await console.ask(workspace, requested_by="admin:alice", observed_generation=1, force=True)
    assert outcome.outcome is OutcomeKind.ACCEPTED
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    counts = console.aws.counts(workspace)
    assert (counts.launches, counts.max_unterminated_at_once) == (2, 1)


async def test_a_protected_box_says_at_once_why_it_still_runs_and_when_it_is_tried_again(
    console: Console, workspace: str
) -> None:
    await online(console, workspace)
    protected = console.aws.inject(
        "TerminateInstances",
        "error",
        code="OperationNotPermitted",
        status=400,
        times=None,
        workspace=workspace,
    )
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    status = await eventually(
        lambda: console.status(workspace),
        lambda it: it.last_error is not None and "next attempt at" in it.waiting_for,
    )
    assert status.last_error is not None
    assert (status.last_error.code, status.last_error.retryable) == ("OperationNotPermitted", True)
    console.aws.release(protected)
    await recreated_once(console, workspace)


async def test_a_delete_succeeds_when_the_hosted_zone_is_gone(console: Console, workspace: str) -> None:
    await online(console, workspace)
    gone = console.aws.inject(
        "ChangeResourceRecordSets",
        "error",
        code="NoSuchHostedZone",
        status=404,
        times=None,
        workspace=workspace,
    )
    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.until_phase(workspace, Phase.DELETED)
    assert console.aws.fault(gone).used > 0


def records_of(stack: Stack, console: Console, workspace: str, *, delete: str | None = None) -> set[str]:
    """The types of the records at the workspace's name, after those of the type `delete` are deleted."""
    info = console.aws.info()
    route53 = boto3.client(
        "route53",
        endpoint_url=stack.aws_url,
        config=Config(region_name=info.region),
        aws_access_key_id="x",
        aws_secret_access_key="y",
    )
    listed = route53.list_resource_record_sets(HostedZoneId=info.hosted_zone_id)["ResourceRecordSets"]
    found = [record for record in listed if f"{workspace}." in record["Name"]]
    for record in found:
        if record["Type"] == delete:
            route53.change_resource_record_sets(
                HostedZoneId=info.hosted_zone_id,
                ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]},
            )
    return {str(record["Type"]) for record in found} - {delete}


async def test_a_deleted_claim_costs_no_box_and_leaves_no_record(
    stack: Stack, console: Console, workspace: str
) -> None:
    await online(console, workspace)
    assert await asyncio.to_thread(records_of, stack, console, workspace, delete="TXT") == {"A"}
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert await asyncio.to_thread(records_of, stack, console, workspace, delete="TXT") == {"A"}
    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.until_phase(workspace, Phase.DELETED)
    assert await asyncio.to_thread(records_of, stack, console, workspace) == set()


async def test_a_volume_that_ec2_does_not_know_yet_is_attached_to_the_same_box(
    console: Console, workspace: str
) -> None:
    unknown = console.aws.inject(
        "AttachVolume", "error", code="InvalidVolume.NotFound", status=400, workspace=workspace
    )
    await console.start(workspace, WorkspaceSpec(data_volume=DataVolume(size_gib=1)))
    await console.until_phase(workspace, Phase.ONLINE, generation=1)
    assert console.aws.fault(unknown).used == 1
    assert console.aws.counts(workspace).launches == 1
