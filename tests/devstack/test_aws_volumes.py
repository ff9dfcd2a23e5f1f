"""Volumes as in EC2: attached to one instance at a time, until it has ended; throttled snapshots."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from devstack.aws.client import AwsEndpoint
from devstack.processes import free_port
from tests.devstack.cloud import (
    Clients,
    code_of,
    endpoint_process,
    eventually,
    launch,
    listed,
    wait_for_endpoint,
)


def created(clients: Clients, workspace: str, *, zone: str, token: str = "", size: int = 1) -> str:
    return clients.ec2.create_volume(
        AvailabilityZone=zone,
        Size=size,
        ClientToken=token or workspace,
        TagSpecifications=[
            {"ResourceType": "volume", "Tags": [{"Key": "onebox:workspace", "Value": workspace}]}
        ],
    )["VolumeId"]


def running(clients: Clients, workspace: str, token: str, *, zone: str = "us-east-1a") -> str:
    instance_id = launch(clients, workspace, token, zone=zone)["InstanceId"]
    eventually(lambda: instance_id in [it["InstanceId"] for it in listed(clients, workspace, "running")])
    return instance_id


def state(clients: Clients, volume_id: str) -> tuple[str, list[str]]:
    [volume] = clients.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"]
    return volume["State"], [one["InstanceId"] for one in volume["Attachments"]]


def refused(call: object, **parameters: object) -> str:
    assert callable(call)
    with pytest.raises(ClientError) as raised:
        call(**parameters)
    return code_of(raised.value)


def test_a_volume_is_attached_to_a_running_instance_of_its_zone_and_to_no_second_one(
    clients: Clients, endpoint: AwsEndpoint
) -> None:
    volume_id = created(clients, "vol-once", zone="us-east-1a")
    elsewhere = running(clients, "vol-once", "vol-once-0", zone="us-east-1b")
    attach = clients.ec2.attach_volume
    call = {"VolumeId": volume_id, "Device": "/dev/sdf"}
    assert refused(attach, InstanceId=elsewhere, **call) == "InvalidVolume.ZoneMismatch"
    first, second = (running(clients, "vol-once", f"vol-once-{number}") for number in (1, 2))
    attach(InstanceId=first, VolumeId=volume_id, Device="/dev/sdf")
    assert state(clients, volume_id) == ("in-use", [first])
    for other in (first, second):
        assert refused(attach, InstanceId=other, **call) == "VolumeInUse"
    assert [it.data_volumes for it in endpoint.instances("vol-once") if it.instance_id == first] == [
        (volume_id,)
    ]
    assert refused(clients.ec2.delete_volume, VolumeId=volume_id) == "VolumeInUse"


@pytest.fixture
def slow(
    tmp_path: Path, connect: Callable[[str], Clients], request: pytest.FixtureRequest
) -> Iterator[Clients]:
    """An endpoint in which one transition never ends."""
    port = free_port()
    process = endpoint_process(tmp_path, port, str(request.param), "3600")
    process.start()
    try:
        yield connect(wait_for_endpoint(process, port))
    finally:
        process.stop()


@pytest.mark.parametrize("slow", ["--pending-seconds"], indirect=True)
def test_a_pending_instance_takes_no_volume(slow: Clients) -> None:
    volume_id = created(slow, "vol-pending", zone="us-east-1a")
    pending = launch(slow, "vol-pending", "vol-pending-1", zone="us-east-1a")["InstanceId"]
    call = {"InstanceId": pending, "VolumeId": volume_id, "Device": "/dev/sdf"}
    assert refused(slow.ec2.attach_volume, **call) == "IncorrectState"


@pytest.mark.parametrize("slow", ["--terminating-seconds"], indirect=True)
def test_an_instance_that_is_being_terminated_holds_its_volume(slow: Clients) -> None:
    volume_id = created(slow, "vol-ending", zone="us-east-1a")
    instance_id = running(slow, "vol-ending", "vol-ending-1")
    slow.ec2.attach_volume(InstanceId=instance_id, VolumeId=volume_id, Device="/dev/sdf")
    slow.ec2.terminate_instances(InstanceIds=[instance_id])
    assert state(slow, volume_id) == ("in-use", [instance_id])


def test_an_instance_releases_its_volume_when_it_has_ended(clients: Clients, endpoint: AwsEndpoint) -> None:
    volume_id = created(clients, "vol-end", zone="us-east-1a")
    instance_id = running(clients, "vol-end", "vol-end-1")
    clients.ec2.attach_volume(InstanceId=instance_id, VolumeId=volume_id, Device="/dev/sdf")
    clients.ec2.terminate_instances(InstanceIds=[instance_id])
    eventually(lambda: state(clients, volume_id) == ("available", []))
    moves = [it for it in endpoint.journal(workspace="vol-end") if it.action == "VolumeChange"]
    assert [it.outcome for it in moves] == ["attached", "detached"]
    clients.ec2.delete_volume(VolumeId=volume_id)
    assert refused(clients.ec2.describe_volumes, VolumeIds=[volume_id]) == "InvalidVolume.NotFound"


def test_a_running_box_releases_its_volume_only_by_force(clients: Clients) -> None:
    volume_id = created(clients, "vol-force", zone="us-east-1a")
    instance_id = running(clients, "vol-force", "vol-force-1")
    clients.ec2.attach_volume(InstanceId=instance_id, VolumeId=volume_id, Device="/dev/sdf")
    clients.ec2.detach_volume(VolumeId=volume_id, InstanceId=instance_id)
    assert state(clients, volume_id) == ("in-use", [instance_id])
    clients.ec2.detach_volume(VolumeId=volume_id, InstanceId=instance_id, Force=True)
    assert state(clients, volume_id) == ("available", [])
    assert refused(clients.ec2.detach_volume, VolumeId=volume_id, InstanceId=instance_id) == "IncorrectState"


def test_a_second_snapshot_of_a_volume_within_15_s_is_refused_and_one_of_another_is_not(
    clients: Clients, endpoint: AwsEndpoint
) -> None:
    first, other = (
        created(clients, "vol-snap", zone="us-east-1a", token=f"vol-snap-{number}") for number in (1, 2)
    )
    clients.ec2.create_snapshot(VolumeId=first)
    code = refused(clients.ec2.create_snapshot, VolumeId=first)
    assert code == "SnapshotCreationPerVolumeRateExceeded"
    clients.ec2.create_snapshot(VolumeId=other)
    assert endpoint.counts("vol-snap").snapshots == 2
    [entry] = [it for it in endpoint.journal(workspace="vol-snap") if it.code == code]
    assert entry.parameters["VolumeId"] == first


def test_a_fault_of_one_workspace_finds_its_volume(clients: Clients, endpoint: AwsEndpoint) -> None:
    theirs, ours = (created(clients, f"vol-{name}", zone="us-east-1a") for name in ("theirs", "ours"))
    endpoint.inject("CreateSnapshot", "error", workspace="vol-theirs", times=None)
    clients.ec2.create_snapshot(VolumeId=ours)
    assert refused(clients.ec2.create_snapshot, VolumeId=theirs) == "RequestLimitExceeded"
