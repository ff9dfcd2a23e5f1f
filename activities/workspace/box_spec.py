"""What a box is made of: the worker's defaults, what a workspace changes, and the launch request they give.

Pure values; it reads no settings and calls nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

from pydantic import TypeAdapter

from activities.aws.instances import box_tags
from store.workspace.generations import Json
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.state import SnapshotPolicy, Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxDefaults:
    """The worker's settings for boxes, which a workspace's spec may override."""

    image_id: str
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...] = ()
    """Empty: EC2 chooses one of the default VPC."""
    security_group_ids: tuple[str, ...] = ()
    register_api_url: str
    runtime_command: str
    runtime_user: str
    runtime_port: int
    configs_dir: str
    data_dir: str = "/data"
    """Where a box mounts the data volume, if there is one."""
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSpec:
    """What a generation was opened with; settings that change later don't reach it."""

    image_id: str
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    runtime_port: int
    timings: Timings
    data_volume: DataVolume | None = None
    snapshot: SnapshotPolicy = SnapshotPolicy.OFF
    zone: str | None = None
    """Where the data volume is; None: anywhere. Known to a launch, and not stored."""

    @property
    def offerings(self) -> int:
        """How many combinations of zone and type there are."""
        return len(self.instance_types) * max(1, len(self.subnet_ids))

    def offering(self, attempt: int) -> tuple[str, str | None]:
        """The type and subnet of an attempt: all zones of the preferred type first, and round again."""
        number = (attempt - 1) % self.offerings
        zones = max(1, len(self.subnet_ids))
        subnet = self.subnet_ids[number % zones] if self.subnet_ids else None
        return self.instance_types[number // zones], subnet


_RESOLVED = TypeAdapter(ResolvedSpec)


def overrides(spec: WorkspaceSpec) -> Json:
    """The members that a spec sets, as they are stored."""
    return spec.model_dump(mode="json", exclude_none=True)


def resolve(defaults: BoxDefaults, stored: Json) -> ResolvedSpec:
    """The defaults with a workspace's stored overrides."""
    spec = WorkspaceSpec.model_validate(stored)
    timings = defaults.timings
    if spec.register_deadline_seconds is not None:
        timings = replace(timings, register_deadline=timedelta(seconds=spec.register_deadline_seconds))
    return ResolvedSpec(
        image_id=spec.image_id or defaults.image_id,
        instance_types=spec.instance_types or defaults.instance_types,
        subnet_ids=spec.subnet_ids or defaults.subnet_ids,
        security_group_ids=defaults.security_group_ids
        if spec.security_group_ids is None
        else spec.security_group_ids,
        runtime_port=spec.runtime_port or defaults.runtime_port,
        timings=replace(timings, canary=spec.canary or timings.canary),
        data_volume=spec.data_volume,
        snapshot=spec.snapshot or SnapshotPolicy.OFF,
    )


class NoSubnetInZone(ValueError):
    """The data volume is where no box can be launched; the text says where that is."""


def restricted_to_zone(resolved: ResolvedSpec, *, zone: str, zones: Mapping[str, str]) -> ResolvedSpec:
    """The same, but only in the zone of the data volume. `zones` are those of the subnets.

    Raises `NoSubnetInZone`.
    """
    there = tuple(subnet for subnet in resolved.subnet_ids if zones.get(subnet) == zone)
    if resolved.subnet_ids and not there:
        raise NoSubnetInZone(
            f"the data volume is in {zone}, and none of the subnets {', '.join(resolved.subnet_ids)} is"
        )
    return replace(resolved, subnet_ids=there, zone=zone)


def dump(resolved: ResolvedSpec) -> Json:
    """The form in which a generation keeps it."""
    return cast("Json", _RESOLVED.dump_python(resolved, mode="json"))


def load(stored: Json) -> ResolvedSpec:
    """Read it back from a generation."""
    return _RESOLVED.validate_python(stored)


def run_instances_request(
    resolved: ResolvedSpec, *, owner: str, workspace_id: str, generation: int, attempt: int
) -> Json:
    """The parameters of RunInstances but for the token and the user data."""
    instance_type, subnet_id = resolved.offering(attempt)
    tags = box_tags(owner=owner, workspace_id=workspace_id, generation=generation, attempt=attempt)
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    request: Json = {
        "ImageId": resolved.image_id,
        "InstanceType": instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        # A superseded box powers itself off, and must not stay behind as a stopped one.
        "InstanceInitiatedShutdownBehavior": "terminate",
        # The user data holds the bootstrap secret: no forwarded request may read it (IMDSv2, one hop).
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": listed} for kind in ("instance", "volume", "network-interface")
        ],
    }
    if subnet_id is not None:
        request["SubnetId"] = subnet_id
    elif resolved.zone is not None:
        request["Placement"] = {"AvailabilityZone": resolved.zone}
    if resolved.security_group_ids:
        request["SecurityGroupIds"] = list(resolved.security_group_ids)
    return request
