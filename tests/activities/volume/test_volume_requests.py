"""The CreateVolume request, and specs that are rejected before it."""

import pytest

from activities.aws import ebs
from activities.user_data import box_volume
from workflows.workspace.messages import DataVolume, VolumeType

pytestmark = pytest.mark.anyio


def test_the_box_looks_for_the_device_of_the_attachment() -> None:
    assert box_volume.DEVICE == ebs.DEVICE


def test_a_request_has_the_members_of_the_spec_and_nothing_else() -> None:
    volume = DataVolume(size_gib=500, type=VolumeType.GP3, iops=6000, throughput_mibps=500, encrypted=False)
    request = ebs.create_volume_request(volume, zone="us-east-1c", owner="me", workspace_id="ws")
    tags = request.pop("TagSpecifications")
    assert request == {
        "AvailabilityZone": "us-east-1c",
        "Size": 500,
        "VolumeType": "gp3",
        "Encrypted": False,
        "Iops": 6000,
        "Throughput": 500,
    }
    assert isinstance(tags, list)
    plain = ebs.create_volume_request(DataVolume(), zone="z", owner="me", workspace_id="ws")
    assert {"Iops", "Throughput"}.isdisjoint(plain)


@pytest.mark.parametrize(
    "members",
    [
        {"size_gib": 0},
        {"size_gib": 16_385},
        {"type": "st1"},
        {"type": "io2"},
        {"type": "io2", "iops": 4000, "size_gib": 3},
        {"type": "gp2", "iops": 4000},
        {"type": "gp3", "iops": 2999},
        {"type": "gp2", "throughput_mibps": 200},
        {"zone": "us-east-1a"},
    ],
)
def test_a_volume_that_ec2_would_not_create_is_refused_with_the_spec(members: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        DataVolume.model_validate(members)
