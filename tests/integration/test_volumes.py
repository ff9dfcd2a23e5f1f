"""Data volumes: the next box reads the previous one's data; no recreate waits for a snapshot."""

import asyncio
import os
import signal
from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest

from devstack.aws.values import Entry
from devstack.console import TIMEOUT_SECONDS, Console, eventually
from devstack.stack import Stack
from workflows.workspace.enums import Phase, SnapshotPolicy, Step
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

SPEC = WorkspaceSpec(data_volume=DataVolume(size_gib=1))
SNAPSHOTS = SPEC.model_copy(update={"snapshot": SnapshotPolicy.RECREATE})
TOO_SOON = "SnapshotCreationPerVolumeRateExceeded"


def entries(console: Console, workspace: str, action: str) -> list[Entry]:
    return [entry for entry in console.aws.journal(workspace=workspace) if entry.action == action]


def never_at_two_instances(console: Console, workspace: str) -> list[str]:
    """The instances that had the volume, in order; fails if two had it at once."""
    holders: list[str] = []
    holding: str | None = None
    for entry in entries(console, workspace, "VolumeChange"):
        [instance_id] = entry.instance_ids
        if entry.outcome == "attached":
            assert holding is None, f"{instance_id} got the volume while {holding} had it"
            holding = instance_id
            holders.append(instance_id)
        else:
            assert holding == instance_id
            holding = None
    refused = [it.code for it in entries(console, workspace, "AttachVolume") if it.outcome == "refused"]
    assert "VolumeInUse" not in refused, "nothing was left to EC2 to refuse"
    return holders


async def online(console: Console, workspace: str, spec: WorkspaceSpec = SPEC) -> None:
    await console.start(workspace, spec)
    await console.until_phase(workspace, Phase.ONLINE)
    await reachable(console, workspace)


async def reachable(console: Console, workspace: str) -> None:
    """The runtime has registered its URL; the box script registers without one."""
    await eventually(lambda: console.record(workspace), lambda it: bool(it.get("url")))


async def recreated(console: Console, workspace: str, *, generation: int) -> None:
    await console.ask(workspace, requested_by="admin:alice", observed_generation=generation - 1)
    await console.until_phase(workspace, Phase.ONLINE, generation=generation)
    await reachable(console, workspace)


async def test_a_file_of_one_generation_is_read_by_the_next_also_after_a_stop(
    console: Console, workspace: str
) -> None:
    await online(console, workspace)
    await console.write_data(workspace, "memory", "what generation 1 knew")
    await recreated(console, workspace, generation=2)
    assert await console.read_data(workspace, "memory") == "what generation 1 knew"
    await console.ask(workspace, "request_stop", requested_by="admin:alice")
    await console.until_phase(workspace, Phase.STOPPED)
    await console.ask(workspace, "request_start", requested_by="admin:alice")
    await console.until_phase(workspace, Phase.ONLINE, generation=3)
    await reachable(console, workspace)
    assert await console.read_data(workspace, "memory") == "what generation 1 knew"
    assert len(never_at_two_instances(console, workspace)) == 3
    assert [it.outcome for it in entries(console, workspace, "CreateVolume")] == ["done"]
    assert console.aws.counts(workspace).snapshots == 0


async def test_the_snapshot_storm_of_the_incident_takes_one_snapshot_and_fails_no_recreate(
    console: Console, workspace: str
) -> None:
    await online(console, workspace, SNAPSHOTS)
    for generation in range(1, 6):
        await asyncio.gather(
            *(
                console.signal(
                    workspace,
                    requested_by=f"admin:{number}",
                    observed_generation=generation,
                    request_id=f"storm-{generation}-{number}",
                )
                for number in range(10)
            )
        )
        await console.until_phase(workspace, Phase.ONLINE, generation=generation + 1)
    rows = await eventually(
        lambda: console.rows("SELECT outcome FROM requests WHERE workspace_id = %s", workspace),
        lambda rows: len(rows) >= 50,
    )
    outcomes = Counter(str(row["outcome"]) for row in rows)
    assert outcomes[OutcomeKind.ACCEPTED] == 5
    assert (
        outcomes.total()
        == outcomes[OutcomeKind.ACCEPTED] + outcomes[OutcomeKind.JOINED] + (outcomes[OutcomeKind.STALE])
    )
    assert len(entries(console, workspace, "CreateSnapshot")) == 1
    assert console.aws.counts(workspace).snapshots == 1
    assert (await console.status(workspace)).last_error is None
    assert len(never_at_two_instances(console, workspace)) == 6


async def test_a_snapshot_that_ec2_refuses_holds_no_recreate_up_and_is_not_asked_for_again_at_once(
    console: Console, workspace: str
) -> None:
    await online(console, workspace, SNAPSHOTS)
    console.aws.inject("CreateSnapshot", "error", code=TOO_SOON, status=400, times=None, workspace=workspace)
    for generation in (2, 3, 4):
        await recreated(console, workspace, generation=generation)
        status = await console.status(workspace)
        assert status.last_error is not None
        assert status.last_error.phase is Step.SNAPSHOT
    asked = [datetime.fromisoformat(entry.at) for entry in entries(console, workspace, "CreateSnapshot")]
    pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(asked)]
    assert all(pause >= 15 for pause in pauses), pauses
    assert console.aws.counts(workspace).snapshots == 0


async def test_a_worker_killed_between_attaching_and_recording_never_leaves_the_volume_at_two_boxes(
    stack: Stack, console: Console, workspace: str
) -> None:
    held = console.aws.inject("AttachVolume", "hold", workspace=workspace)
    await console.start(workspace, SPEC)
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    pid = stack.pids["worker"]
    os.kill(pid, signal.SIGKILL)
    # At once, before the attachment is known: another box is requested.
    await console.signal(workspace, requested_by="admin:alice")
    await console.signal(workspace, "stop", requested_by="admin:alice")
    await console.signal(workspace, "start", requested_by="admin:alice")
    console.aws.release(held)
    await asyncio.to_thread(stack.wait_ready, "worker", other_than=pid)
    status = await console.until_phase(workspace, Phase.ONLINE, generation=2)
    holders = never_at_two_instances(console, workspace)
    assert holders[-1] == status.instance_id
    assert status.volume_id is not None
    assert len(holders) == 2
    assert [it.outcome for it in entries(console, workspace, "CreateVolume")] == ["done"]
    assert console.aws.counts(workspace).max_alive_at_once == 1


@pytest.mark.slow
async def test_a_worker_killed_in_the_middle_of_an_attachment_finds_it_done(
    stack: Stack, console: Console, workspace: str
) -> None:
    await online(console, workspace)
    held = console.aws.inject("AttachVolume", "hold", workspace=workspace)
    await console.ask(workspace, requested_by="admin:alice", observed_generation=1)
    await asyncio.to_thread(console.aws.wait_until_held, held, seconds=TIMEOUT_SECONDS)
    pid = stack.pids["worker"]
    os.kill(pid, signal.SIGKILL)
    console.aws.release(held)
    await asyncio.to_thread(stack.wait_ready, "worker", other_than=pid)
    await console.until_phase(workspace, Phase.ONLINE, generation=2)
    assert len(never_at_two_instances(console, workspace)) == 2
    assert [it.outcome for it in entries(console, workspace, "AttachVolume")] == ["done", "done"]


async def test_a_deletion_leaves_no_volume_behind_and_the_snapshots_by_policy(
    console: Console, workspace: str
) -> None:
    await online(console, workspace, SNAPSHOTS)
    await recreated(console, workspace, generation=2)
    await console.ask(workspace, "request_delete", requested_by="admin:alice")
    await console.workflow(workspace).result()
    assert [it.outcome for it in entries(console, workspace, "DeleteVolume")] == ["done"]
    assert entries(console, workspace, "DeleteSnapshot") == []
    [volume] = await console.rows("SELECT deleted_at FROM volumes WHERE workspace_id = %s", workspace)
    assert volume["deleted_at"] is not None
