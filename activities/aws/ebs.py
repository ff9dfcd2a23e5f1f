"""EC2 calls for data volumes and snapshots. All functions block."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, cast
from uuid import UUID

from botocore.exceptions import ClientError

from activities.aws import errors
from activities.aws.instances import GENERATION_TAG, OWNER_TAG, VOLUME_TAG, WORKSPACE_TAG
from store.workspace.generations import Json
from workflows.workspace.messages import DataVolume

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import CreateVolumeRequestTypeDef, FilterTypeDef, TagTypeDef, VolumeTypeDef

DEVICE = "/dev/sdf"
"""The device name of the attachment in EC2. The box script finds the disk by it."""

DATA = "data"
"""The value of `VOLUME_TAG`."""

SNAPSHOT_TAG = "onebox:snapshot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An attachment of a volume, including one that is attaching or detaching."""

    instance_id: str
    attached: bool
    """False while it is attaching or detaching."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """One volume, as EC2 describes it."""

    volume_id: str
    zone: str
    state: str
    created_at: datetime
    attachments: tuple[Attachment, ...]

    @property
    def available(self) -> bool:
        """Whether it is attached to no instance."""
        return self.state == "available"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot, as EC2 describes it."""

    snapshot_id: str
    pending: bool
    failed: bool


def client_token(owner: str, workspace_id: str) -> str:
    """The ClientToken of the workspace's data volume, at most 64 characters. A workspace has one volume."""
    return hashlib.sha256(f"{owner}|{workspace_id}|data-volume".encode()).hexdigest()


def create_volume_request(volume: DataVolume, *, zone: str, owner: str, workspace_id: str) -> Json:
    """The parameters of CreateVolume, without the token."""
    request: Json = {
        "AvailabilityZone": zone,
        "Size": volume.size_gib,
        "VolumeType": volume.type.value,
        "Encrypted": volume.encrypted,
        "TagSpecifications": [
            {"ResourceType": "volume", "Tags": _tags(owner, workspace_id) + _listed({VOLUME_TAG: DATA})}
        ],
    }
    if volume.iops is not None:
        request["Iops"] = volume.iops
    if volume.throughput_mibps is not None:
        request["Throughput"] = volume.throughput_mibps
    return request


def create_volume(ec2: "EC2Client", request: Json, token: str) -> Volume:
    """Create the volume, or get the one that was created with this token."""
    # `create_volume_request` built these parameters.
    parameters = cast("CreateVolumeRequestTypeDef", {**request, "ClientToken": token})
    return _read(cast("VolumeTypeDef", ec2.create_volume(**parameters)))


def volume_by_id(ec2: "EC2Client", volume_id: str) -> Volume | None:
    """The volume, if EC2 lists it. Uses a filter: an unknown ID in `VolumeIds` is an error."""
    return next(iter(_described(ec2, [{"Name": "volume-id", "Values": [volume_id]}])), None)


def volumes_by_tags(ec2: "EC2Client", *, owner: str, workspace_id: str) -> list[Volume]:
    """The data volumes of a workspace, oldest first. Normally there is at most one."""
    filters: list[FilterTypeDef] = [
        {"Name": f"tag:{OWNER_TAG}", "Values": [owner]},
        {"Name": f"tag:{WORKSPACE_TAG}", "Values": [workspace_id]},
        {"Name": f"tag:{VOLUME_TAG}", "Values": [DATA]},
    ]
    return sorted(_described(ec2, filters), key=lambda volume: (volume.created_at, volume.volume_id))


def attach(ec2: "EC2Client", volume_id: str, instance_id: str) -> None:
    """Attach the volume."""
    ec2.attach_volume(VolumeId=volume_id, InstanceId=instance_id, Device=DEVICE)


def detach(ec2: "EC2Client", volume_id: str, instance_id: str, force: bool) -> None:
    """Detach the volume. One that is already detached is no error."""
    try:
        ec2.detach_volume(VolumeId=volume_id, InstanceId=instance_id, Force=force)
    except ClientError as error:
        code = errors.code_of(error)
        if code != "IncorrectState" and not errors.is_not_found(code):
            raise


def delete_volume(ec2: "EC2Client", volume_id: str) -> None:
    """Delete the volume. A missing one is no error."""
    try:
        ec2.delete_volume(VolumeId=volume_id)
    except ClientError as error:
        if not errors.is_not_found(errors.code_of(error)):
            raise


def zones_of(ec2: "EC2Client", subnet_ids: Sequence[str]) -> dict[str, str]:
    """The availability zone of each subnet that EC2 lists."""
    pages = ec2.get_paginator("describe_subnets").paginate(
        Filters=[{"Name": "subnet-id", "Values": list(subnet_ids)}]
    )
    return {
        subnet["SubnetId"]: subnet["AvailabilityZone"]
        for page in pages
        for subnet in page["Subnets"]
        if "SubnetId" in subnet and "AvailabilityZone" in subnet
    }


def create_snapshot(
    ec2: "EC2Client", volume_id: str, *, key: UUID, owner: str, workspace_id: str, generation: int
) -> str:
    """Create a snapshot and return its ID. It captures this moment, however long EC2 copies."""
    tags = _tags(owner, workspace_id) + _listed({GENERATION_TAG: str(generation), SNAPSHOT_TAG: str(key)})
    return ec2.create_snapshot(
        VolumeId=volume_id,
        Description=f"{workspace_id} before generation {generation}",
        TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags}],
    )["SnapshotId"]


def snapshot_by_key(ec2: "EC2Client", key: UUID) -> Snapshot | None:
    """The snapshot of a CreateSnapshot call whose response may have been lost."""
    return _snapshot(ec2, [{"Name": f"tag:{SNAPSHOT_TAG}", "Values": [str(key)]}])


def snapshot_by_id(ec2: "EC2Client", snapshot_id: str) -> Snapshot | None:
    """The snapshot, if EC2 lists it."""
    return _snapshot(ec2, [{"Name": "snapshot-id", "Values": [snapshot_id]}])


def delete_snapshot(ec2: "EC2Client", snapshot_id: str) -> None:
    """Delete the snapshot. A missing one is no error."""
    try:
        ec2.delete_snapshot(SnapshotId=snapshot_id)
    except ClientError as error:
        if not errors.is_not_found(errors.code_of(error)):
            raise


def _described(ec2: "EC2Client", filters: "list[FilterTypeDef]") -> list[Volume]:
    pages = ec2.get_paginator("describe_volumes").paginate(Filters=filters)
    return [
        _read(described)
        for page in pages
        for described in page["Volumes"]
        if described.get("State") not in ("deleting", "deleted")
    ]


def _read(described: "VolumeTypeDef") -> Volume:
    return Volume(
        volume_id=described["VolumeId"],
        zone=described["AvailabilityZone"],
        state=described.get("State", ""),
        created_at=described["CreateTime"],
        attachments=tuple(
            Attachment(instance_id=one["InstanceId"], attached=one.get("State") == "attached")
            for one in described.get("Attachments", [])
            if one.get("State") != "detached" and "InstanceId" in one
        ),
    )


def _snapshot(ec2: "EC2Client", filters: "list[FilterTypeDef]") -> Snapshot | None:
    pages = ec2.get_paginator("describe_snapshots").paginate(Filters=filters, OwnerIds=["self"])
    for page in pages:
        for described in page["Snapshots"]:
            return Snapshot(
                snapshot_id=described["SnapshotId"],
                pending=described["State"] == "pending",
                failed=described["State"] == "error",
            )
    return None


def _tags(owner: str, workspace_id: str) -> "list[TagTypeDef]":
    return _listed({"Name": workspace_id, OWNER_TAG: owner, WORKSPACE_TAG: workspace_id})


def _listed(tags: dict[str, str]) -> "list[TagTypeDef]":
    return [{"Key": key, "Value": value} for key, value in tags.items()]
