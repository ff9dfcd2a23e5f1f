"""Volumes and snapshots as in EC2: single attachment, release when the instance ends, throttling.

moto creates, lists and deletes them. It would attach a volume twice and release it too early.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from moto.ec2.models.elastic_block_store import Volume
from werkzeug.wrappers import Response

from devstack.aws.cloud import ClientTokenRecord, Cloud
from devstack.aws.instances import Machine, attached_to
from devstack.aws.journal import ALIVE
from devstack.aws.values import WORKSPACE_TAG, VolumeChange
from devstack.aws.wire import Call, Refused, all_of, ec2_answer, read_xml, write_xml

SNAPSHOT_MIN_INTERVAL = 15.0
"""EC2 refuses a second snapshot of the same volume within this time."""

VOLUME_TOKENS = "volumes"
"""Scope of volume client tokens; EC2 keeps them apart from those of launches."""

ACTIONS = frozenset({"CreateVolume", "AttachVolume", "DetachVolume", "DeleteVolume", "CreateSnapshot"})


def answer(cloud: Cloud, call: Call, *, now: float) -> Response:
    """Execute one of `ACTIONS`. Raises `Refused`."""
    match call.action:
        case "CreateVolume":
            return _create(cloud, call, now=now)
        case "AttachVolume":
            return _attach(cloud, call, now=now)
        case "DetachVolume":
            return _detach(cloud, call, now=now)
        case "CreateSnapshot":
            return _snapshot(cloud, call, now=now)
        case _:
            return cloud.dispatch(call)


def volume_of(cloud: Cloud, call: Call) -> Volume | None:
    """Return the volume that a call names, if it exists."""
    volume: Volume | None = cloud.ec2(call.region).volumes.get(call.parameters.get("VolumeId", ""))
    return volume


def workspace_of(volume: Volume) -> str | None:
    """Return the workspace from the volume's tags."""
    tags = {tag["key"]: tag["value"] for tag in volume.get_tags()}
    return tags.get(WORKSPACE_TAG)


def data_volumes(machine: Machine) -> list[str]:
    """Return the volumes attached to the instance since its launch."""
    mapping = machine.instance.block_device_mapping
    return [
        volume.id
        for volume, attachment in attached_to(machine)
        if (entry := mapping.get(attachment.device)) is None or not entry.delete_on_termination
    ]


@contextmanager
def keeping_attachments(machines: list[Machine]) -> Iterator[None]:
    """Keep attachments as they are while moto runs; an instance releases its volumes when it has ended."""
    held = [pair for machine in machines for pair in attached_to(machine)]
    yield
    for volume, attachment in held:
        if volume.id in volume.ec2_backend.volumes and volume.attachment is None:
            attachment.status = "attached"
            volume.attachment = attachment


def _create(cloud: Cloud, call: Call, *, now: float) -> Response:
    token = call.parameters.get("ClientToken", "")
    key = (call.region, VOLUME_TOKENS, token)
    meant = sorted((name, value) for name, value in call.parameters.items() if name != "ClientToken")
    digest = hashlib.sha256(repr(meant).encode()).hexdigest()
    backend = cloud.ec2(call.region)
    replay = cloud.client_tokens.get(key) if token else None
    if replay is not None:
        if replay.digest != digest:
            raise Refused("IdempotentParameterMismatch", "The client token was used with other parameters.")
        for volume_id in replay.instance_ids:
            if volume_id in backend.volumes:
                return _created_answer(cloud, call, volume_id)
    before = set(backend.volumes)
    response = cloud.dispatch(call)
    if response.status_code == 200 and token:
        made = tuple(set(backend.volumes) - before)
        cloud.client_tokens[key] = ClientTokenRecord(digest=digest, instance_ids=made, at=now)
    return response


def _created_answer(cloud: Cloud, call: Call, volume_id: str) -> Response:
    """Return the creation in its current state, in the form of a CreateVolume response."""
    listing = {"Action": "DescribeVolumes", "Version": call.parameters["Version"], "VolumeId.1": volume_id}
    document = read_xml(cloud.dispatch(call.with_parameters(listing)).get_data())
    [item] = all_of(document, "volumeSet/item")
    return ec2_answer("CreateVolume", "".join(write_xml(part) for part in item))


def _attach(cloud: Cloud, call: Call, *, now: float) -> Response:
    volume = volume_of(cloud, call)
    machine = cloud.machines.get(call.parameters.get("InstanceId", ""))
    if volume is None or machine is None:
        return cloud.dispatch(call)  # moto parses the filters
    if volume.attachment is not None:
        raise Refused(
            "VolumeInUse", f"{volume.id} is already attached to an instance: {volume.attachment.instance.id}"
        )
    if machine.state not in {"running", "stopped"}:
        raise Refused("IncorrectState", f"Instance '{machine.instance_id}' is not 'running'.")
    if volume.availability_zone != machine.instance._placement.zone:
        raise Refused(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as the instance.",
        )
    response = cloud.dispatch(call)
    if response.status_code == 200:
        _record_change(cloud, volume, machine, VolumeChange.ATTACHED, at=now)
    return response


def _detach(cloud: Cloud, call: Call, *, now: float) -> Response:
    volume = volume_of(cloud, call)
    if volume is None:
        return cloud.dispatch(call)
    attachment = volume.attachment
    if attachment is None:
        raise Refused("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    holder = attachment.instance.id
    if call.parameters.get("InstanceId") not in (None, holder):
        raise Refused("InvalidAttachment.NotFound", f"The volume '{volume.id}' is not attached there.")
    machine = cloud.machines.get(holder)
    forced = call.parameters.get("Force", "").lower() == "true"
    if machine is not None and machine.state in ALIVE and not forced:
        # The operating system has mounted it and keeps it while the instance runs.
        attachment.status = "busy"
        return ec2_answer(
            "DetachVolume",
            f"<volumeId>{volume.id}</volumeId><instanceId>{holder}</instanceId>"
            f"<device>{attachment.device}</device><status>busy</status>",
        )
    volume.attachment = None
    if machine is not None:
        machine.instance.block_device_mapping.pop(attachment.device, None)
        _record_change(cloud, volume, machine, VolumeChange.DETACHED, at=now)
    return ec2_answer(
        "DetachVolume",
        f"<volumeId>{volume.id}</volumeId><instanceId>{holder}</instanceId>"
        f"<device>{attachment.device}</device><status>detaching</status>",
    )


def _snapshot(cloud: Cloud, call: Call, *, now: float) -> Response:
    volume_id = call.parameters.get("VolumeId", "")
    if now - cloud.snapshots.get(volume_id, 0.0) < SNAPSHOT_MIN_INTERVAL:
        raise Refused(
            "SnapshotCreationPerVolumeRateExceeded",
            "The maximum per volume CreateSnapshot request rate has been exceeded.",
        )
    response = cloud.dispatch(call)
    if response.status_code == 200:
        cloud.snapshots[volume_id] = now
    return response


def _record_change(
    cloud: Cloud, volume: Volume, machine: Machine, change: VolumeChange, *, at: float
) -> None:
    cloud.machines.record_volume_change(machine, str(volume.id), change, now=at)
