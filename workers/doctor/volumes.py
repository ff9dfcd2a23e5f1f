"""What workspaces with a data volume need of EC2, each as a dry run on something of ours.

A fleet without data volumes does without: what is denied here is a warning.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from activities import ebs
from activities.inventory import OWNER_TAG
from workers.doctor.asking import Asking, Refusal, refused, tried
from workers.doctor.model import Finding, ok, skipped, warning
from workers.worker_settings import WorkerSettings
from workflows.messages import DataVolume

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import CreateVolumeRequestTypeDef, FilterTypeDef

NO_INSTANCE = "i-00000000000000000"
NO_VOLUME = "vol-00000000000000000"
NO_SNAPSHOT = "snap-00000000000000000"
"""Nothing has these IDs: EC2 may still say that the action is denied."""

SMALLEST = DataVolume(size_gib=1)

SOME = 5
"""Of a listing: whether it may be read is all that counts."""


async def findings(asking: Asking, settings: WorkerSettings, *, zone: str | None) -> list[Finding]:
    """Listing, creating, attaching, detaching, deleting; and the same of snapshots."""
    ec2 = asking.ec2
    owned: list[FilterTypeDef] = [{"Name": f"tag:{OWNER_TAG}", "Values": [settings.onebox_owner]}]
    volumes, snapshots = await asyncio.gather(
        asking.ask(lambda: ec2.describe_volumes(Filters=owned, MaxResults=SOME)),
        asking.ask(lambda: ec2.describe_snapshots(Filters=owned, OwnerIds=["self"], MaxResults=SOME)),
    )
    volume_id, snapshot_id = NO_VOLUME, NO_SNAPSHOT
    if not isinstance(volumes, Refusal) and volumes["Volumes"]:
        volume_id = volumes["Volumes"][0]["VolumeId"]
    if not isinstance(snapshots, Refusal) and snapshots["Snapshots"]:
        snapshot_id = snapshots["Snapshots"][0]["SnapshotId"]
    attached, detached, deleted, taken, dropped = await asyncio.gather(
        asking.ask(
            lambda: ec2.attach_volume(
                VolumeId=volume_id, InstanceId=NO_INSTANCE, Device=ebs.DEVICE, DryRun=True
            )
        ),
        asking.ask(lambda: ec2.detach_volume(VolumeId=volume_id, DryRun=True)),
        asking.ask(lambda: ec2.delete_volume(VolumeId=volume_id, DryRun=True)),
        asking.ask(lambda: ec2.create_snapshot(VolumeId=volume_id, DryRun=True)),
        asking.ask(lambda: ec2.delete_snapshot(SnapshotId=snapshot_id, DryRun=True)),
    )
    return [
        _listed("DescribeVolumes", volumes),
        _listed("DescribeSnapshots", snapshots),
        await _created(asking, settings, zone),
        *(
            tried(f"ec2.{action}", f"ec2:{action}", answer, optional=True)
            for action, answer in (
                ("AttachVolume", attached),
                ("DetachVolume", detached),
                ("DeleteVolume", deleted),
                ("CreateSnapshot", taken),
                ("DeleteSnapshot", dropped),
            )
        ),
    ]


async def _created(asking: Asking, settings: WorkerSettings, zone: str | None) -> Finding:
    check = "ec2.CreateVolume"
    if zone is None:
        return skipped(check, "no subnet is known, and so no zone to try it in")
    request = ebs.create_volume_request(
        SMALLEST, zone=zone, owner=settings.onebox_owner, workspace_id="onebox-doctor"
    )
    # Built as parameters of this very call.
    parameters = cast("CreateVolumeRequestTypeDef", {**request, "DryRun": True})
    said = await asking.ask(lambda: asking.ec2.create_volume(**parameters))
    return tried(check, "ec2:CreateVolume", said, optional=True)


def _listed(action: str, answer: object) -> Finding:
    check = f"ec2.{action}"
    if not isinstance(answer, Refusal):
        return ok(check, f"ec2:{action} is allowed")
    finding = refused(check, f"ec2:{action}", answer)
    if answer.denied:
        told = f"{finding.told}; workspaces with a data volume need it"
        return warning(check, told, finding.remedy)
    return finding
