"""Checks the EC2 permissions for data volumes and snapshots, with dry runs on existing resources.

A missing permission is a warning, because a fleet without data volumes does not need it.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from activities.aws import ebs
from activities.aws.instances import OWNER_TAG
from cli.doctor.aws_client import AwsClients, AwsError, dry_run_finding, refused
from cli.doctor.model import Finding, ok, skipped, warning
from workers.settings.worker import WorkerSettings
from workflows.workspace.messages import DataVolume

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import CreateVolumeRequestTypeDef, FilterTypeDef

NO_INSTANCE = "i-00000000000000000"
NO_VOLUME = "vol-00000000000000000"
NO_SNAPSHOT = "snap-00000000000000000"
"""No resource has these IDs, but EC2 checks the permission first."""

SMALLEST_VOLUME = DataVolume(size_gib=1)

PAGE_SIZE = 5
"""The listings only check the permission."""


async def findings(clients: AwsClients, settings: WorkerSettings, *, zone: str | None) -> list[Finding]:
    """All checks of volumes and snapshots; `zone` is None if no subnet is known."""
    ec2 = clients.ec2
    owned: list[FilterTypeDef] = [{"Name": f"tag:{OWNER_TAG}", "Values": [settings.control_plane_id]}]
    volumes, snapshots = await asyncio.gather(
        clients.call(lambda: ec2.describe_volumes(Filters=owned, MaxResults=PAGE_SIZE)),
        clients.call(lambda: ec2.describe_snapshots(Filters=owned, OwnerIds=["self"], MaxResults=PAGE_SIZE)),
    )
    volume_id, snapshot_id = NO_VOLUME, NO_SNAPSHOT
    if not isinstance(volumes, AwsError) and volumes["Volumes"]:
        volume_id = volumes["Volumes"][0]["VolumeId"]
    if not isinstance(snapshots, AwsError) and snapshots["Snapshots"]:
        snapshot_id = snapshots["Snapshots"][0]["SnapshotId"]
    attached, detached, deleted, taken, dropped = await asyncio.gather(
        clients.call(
            lambda: ec2.attach_volume(
                VolumeId=volume_id, InstanceId=NO_INSTANCE, Device=ebs.DEVICE, DryRun=True
            )
        ),
        clients.call(lambda: ec2.detach_volume(VolumeId=volume_id, DryRun=True)),
        clients.call(lambda: ec2.delete_volume(VolumeId=volume_id, DryRun=True)),
        clients.call(lambda: ec2.create_snapshot(VolumeId=volume_id, DryRun=True)),
        clients.call(lambda: ec2.delete_snapshot(SnapshotId=snapshot_id, DryRun=True)),
    )
    return [
        _listed("DescribeVolumes", volumes),
        _listed("DescribeSnapshots", snapshots),
        await _created(clients, settings, zone),
        *(
            dry_run_finding(f"ec2.{action}", f"ec2:{action}", result, optional=True)
            for action, result in (
                ("AttachVolume", attached),
                ("DetachVolume", detached),
                ("DeleteVolume", deleted),
                ("CreateSnapshot", taken),
                ("DeleteSnapshot", dropped),
            )
        ),
    ]


async def _created(clients: AwsClients, settings: WorkerSettings, zone: str | None) -> Finding:
    check = "ec2.CreateVolume"
    if zone is None:
        return skipped(check, "no subnet is known, so there is no zone to test in")
    request = ebs.create_volume_request(
        SMALLEST_VOLUME, zone=zone, owner=settings.control_plane_id, workspace_id="onebox-doctor"
    )
    # The dict was built for this call.
    parameters = cast("CreateVolumeRequestTypeDef", {**request, "DryRun": True})
    result = await clients.call(lambda: clients.ec2.create_volume(**parameters))
    return dry_run_finding(check, "ec2:CreateVolume", result, optional=True)


def _listed(action: str, result: object) -> Finding:
    check = f"ec2.{action}"
    if not isinstance(result, AwsError):
        return ok(check, f"ec2:{action} is allowed")
    finding = refused(check, f"ec2:{action}", result)
    if result.denied:
        message = f"{finding.message}; workspaces with a data volume need it"
        return warning(check, message, finding.remedy)
    return finding
