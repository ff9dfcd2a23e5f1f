"""What workspaces with a data volume need of EC2, each as a dry run on something of ours.

A fleet without data volumes does without: what is denied here is a warning.
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
"""Nothing has these IDs: EC2 may still say that the action is denied."""

SMALLEST_VOLUME = DataVolume(size_gib=1)

PAGE_SIZE = 5
"""Of a listing: whether it may be read is all that counts."""


async def findings(clients: AwsClients, settings: WorkerSettings, *, zone: str | None) -> list[Finding]:
    """Listing, creating, attaching, detaching, deleting; and the same of snapshots."""
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
            dry_run_finding(f"ec2.{action}", f"ec2:{action}", answer, optional=True)
            for action, answer in (
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
        return skipped(check, "no subnet is known, and so no zone to try it in")
    request = ebs.create_volume_request(
        SMALLEST_VOLUME, zone=zone, owner=settings.control_plane_id, workspace_id="onebox-doctor"
    )
    # Built as parameters of this very call.
    parameters = cast("CreateVolumeRequestTypeDef", {**request, "DryRun": True})
    said = await clients.call(lambda: clients.ec2.create_volume(**parameters))
    return dry_run_finding(check, "ec2:CreateVolume", said, optional=True)


def _listed(action: str, answer: object) -> Finding:
    check = f"ec2.{action}"
    if not isinstance(answer, AwsError):
        return ok(check, f"ec2:{action} is allowed")
    finding = refused(check, f"ec2:{action}", answer)
    if answer.denied:
        told = f"{finding.message}; workspaces with a data volume need it"
        return warning(check, told, finding.remedy)
    return finding
