"""The spec of a box: the worker's defaults with the workspace's overrides, and its launch request. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import cast

from pydantic import TypeAdapter

from activities.aws.instances import box_tags
from store.workspace.generations import Json
from workflows.workspace.enums import SnapshotPolicy
from workflows.workspace.messages import DataVolume, WorkspaceSpec
from workflows.workspace.state import Timings


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxDefaults:
    """The worker's settings for boxes. A workspace's spec may override some of them."""

    image_id: str
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...] = ()
    """Empty: EC2 chooses a subnet of the default VPC."""
    security_group_ids: tuple[str, ...] = ()
    register_api_url: str
    runtime_command: str
    runtime_user: str
    runtime_port: int
    configs_dir: str
    data_dir: str = "/data"
    """The mount point of the data volume, if the box has one."""
    timings: Timings = field(default_factory=Timings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedSpec:
    """The spec that a generation was opened with. Later changes of settings do not apply to it."""

    image_id: str
    instance_types: tuple[str, ...]
    subnet_ids: tuple[str, ...]
    security_group_ids: tuple[str, ...]
    runtime_port: int
    timings: Timings
    data_volume: DataVolume | None = None
    snapshot: SnapshotPolicy = SnapshotPolicy.OFF
    zone: str | None = None
    """The zone of the data volume; None: any zone. Set by a launch, not stored."""

    @property
    def offerings(self) -> int:
        """The number of combinations of instance type and subnet."""
        return len(self.instance_types) * max(1, len(self.subnet_ids))

    def offering(self, attempt: int) -> tuple[str, str | None]:
        """The type and subnet of an attempt: all subnets of one type, then of the next type, cyclically."""
        number = (attempt - 1) % self.offerings
        zones = max(1, len(self.subnet_ids))
        subnet = self.subnet_ids[number % zones] if self.subnet_ids else None
        return self.instance_types[number // zones], subnet


_RESOLVED = TypeAdapter(ResolvedSpec)


def overrides(spec: WorkspaceSpec) -> Json:
    """The members that a spec sets, as stored."""
    return spec.model_dump(mode="json", exclude_none=True)


def resolve(defaults: BoxDefaults, stored: Json) -> ResolvedSpec:
    """The defaults with a workspace's stored overrides."""
    spec = WorkspaceSpec.model_validate(stored)
    timings = defaults.timings
    if spec.instance_deadline_seconds is not None:
        timings = replace(timings, instance_deadline=timedelta(seconds=spec.instance_deadline_seconds))
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
    """No subnet is in the zone of the data volume."""


def restricted_to_zone(resolved: ResolvedSpec, *, zone: str, zones: Mapping[str, str]) -> ResolvedSpec:
    """The spec with only the subnets in the zone of the data volume. `zones` maps subnets to zones.

    Raises `NoSubnetInZone`.
    """
    there = tuple(subnet for subnet in resolved.subnet_ids if zones.get(subnet) == zone)
    if resolved.subnet_ids and not there:
        raise NoSubnetInZone(
            f"the data volume is in {zone}, and none of the subnets {', '.join(resolved.subnet_ids)} is"
        )
    return replace(resolved, subnet_ids=there, zone=zone)


def dump(resolved: ResolvedSpec) -> Json:
    """The spec as a generation stores it."""
    return cast("Json", _RESOLVED.dump_python(resolved, mode="json"))


def load(stored: Json) -> ResolvedSpec:
    """The spec that a generation stores."""
    return _RESOLVED.validate_python(stored)


def run_instances_request(
    resolved: ResolvedSpec, *, owner: str, workspace_id: str, generation: int, attempt: int
) -> Json:
    """The parameters of RunInstances, without the token and the user data."""
    instance_type, subnet_id = resolved.offering(attempt)
    tags = box_tags(owner=owner, workspace_id=workspace_id, generation=generation, attempt=attempt)
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    request: Json = {
        "ImageId": resolved.image_id,
        "InstanceType": instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        # A superseded box powers itself off: it must not stay as a stopped instance.
        "InstanceInitiatedShutdownBehavior": "terminate",
        # The user data contains the bootstrap secret: IMDSv2 with one hop keeps forwarded requests out.
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
