"""DryRun as in EC2: the named resources must exist; then EC2 answers that it would have done the call.

A dry run changes nothing. Denied actions are injected as faults.
"""

from collections.abc import Iterator

from moto.ec2.models.instance_types import INSTANCE_TYPES

from devstack.aws.cloud import Cloud
from devstack.aws.wire import Call, Refused

DRY_RUN_SUCCEEDED = Refused(
    "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", status=412
)


def answer(cloud: Cloud, call: Call) -> Refused:
    """Return EC2's response to a dry run: `DryRunOperation`, or the error of the call."""
    return next(_faults(cloud, call), DRY_RUN_SUCCEEDED)


def _faults(cloud: Cloud, call: Call) -> Iterator[Refused]:
    backend = cloud.ec2(call.region)
    image = call.parameters.get("ImageId")
    if image is not None and image not in backend.amis:
        yield Refused("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
    kind = call.parameters.get("InstanceType")
    if kind is not None and kind not in INSTANCE_TYPES:
        yield Refused("InvalidParameterValue", f"Invalid value '{kind}' for InstanceType.")
    networks = {
        name: subnet.vpc_id for subnets in backend.subnets.values() for name, subnet in subnets.items()
    }
    subnet_id = call.parameters.get("SubnetId")
    if subnet_id is not None and subnet_id not in networks:
        yield Refused("InvalidSubnetID.NotFound", f"The subnet ID '{subnet_id}' does not exist")
    groups = {name: vpc_id for vpc_id, named in backend.groups.items() for name in named}
    for group_id in call.listed("SecurityGroupId"):
        if group_id not in groups:
            yield Refused("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        elif subnet_id is not None and groups[group_id] != networks[subnet_id]:
            yield Refused(
                "InvalidParameter",
                f"Security group {group_id} and subnet {subnet_id} belong to different networks.",
            )
    for instance_id in (*call.listed("InstanceId"), *_given(call, "InstanceId")):
        if cloud.machines.get(instance_id) is None:
            yield Refused("InvalidInstanceID.NotFound", f"The instance ID '{instance_id}' does not exist")
    for volume_id in _given(call, "VolumeId"):
        if volume_id not in backend.volumes:
            yield Refused("InvalidVolume.NotFound", f"The volume '{volume_id}' does not exist.")
    for snapshot_id in _given(call, "SnapshotId"):
        if snapshot_id not in backend.snapshots:
            yield Refused("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")


def _given(call: Call, name: str) -> Iterator[str]:
    value = call.parameters.get(name)
    if value is not None:
        yield value
