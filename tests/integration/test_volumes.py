"""Data volumes: the next box reads the previous one's data; no recreate waits for a snapshot."""

import asyncio
from collections import Counter

import pytest

from devstack.aws.values import Entry
from devstack.console import Console, eventually
from workflows.workspace.enums import Phase, SnapshotPolicy
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.requests import OutcomeKind

pytestmark = pytest.mark.anyio

SPEC = WorkspaceSpec(data_volume=DataVolume(size_gib=1))
SNAPSHOTS = SPEC.model_copy(update={"snapshot": SnapshotPolicy.RECREATE})


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
