"""What EC2 lists: the instances of a workspace by their tags or IDs, and which of them is whose.

It reads only. A list may be late or empty; what follows from that is not decided here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef

OWNER_TAG = "onebox:owner"
WORKSPACE_TAG = "onebox:workspace"
GENERATION_TAG = "onebox:generation"
ATTEMPT_TAG = "onebox:attempt"
VOLUME_TAG = "onebox:volume"
"""On a data volume only: boxes' own volumes have the tags above, too."""
PROTECT_TAG = "onebox:protect"
"""A human's, whatever its value: it keeps the orphan sweep away."""

PAGE_SIZE = 500
"""Instances in one answer: a fleet is a few requests, and none of them is slow."""


class InstanceState(StrEnum):
    """EC2's own words."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    SHUTTING_DOWN = "shutting-down"
    TERMINATED = "terminated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance, as EC2 describes it now."""

    instance_id: str
    state: InstanceState
    private_ip: str | None
    owner: str | None
    generation: int
    """0 if the tag is not there, or no number: older than any generation."""
    attempt: int
    launched_at: datetime
    state_reason: str
    zone: str = ""
    workspace_id: str | None = None
    protected: bool = False

    @property
    def terminated(self) -> bool:
        """Whether it is over for good; one that shuts down may still write."""
        return self.state is InstanceState.TERMINATED

    @property
    def launch(self) -> tuple[int, int]:
        """The generation and attempt that its tags name; they order launches."""
        return self.generation, self.attempt


def box_tags(*, owner: str, workspace_id: str, generation: int, attempt: int) -> dict[str, str]:
    """The tags of an instance, its volumes and its interfaces."""
    return {
        "Name": workspace_id,
        OWNER_TAG: owner,
        WORKSPACE_TAG: workspace_id,
        GENERATION_TAG: str(generation),
        ATTEMPT_TAG: str(attempt),
    }


def by_tags(ec2: "EC2Client", *, owner: str, workspace_id: str) -> list[Instance]:
    """The instances of a workspace, in any state. Blocks."""
    return _described(
        ec2,
        [
            {"Name": f"tag:{OWNER_TAG}", "Values": [owner]},
            {"Name": f"tag:{WORKSPACE_TAG}", "Values": [workspace_id]},
        ],
    )


def by_owner(ec2: "EC2Client", *, owner: str) -> list[Instance]:
    """All instances of a control plane, in any state, page by page. Blocks."""
    return _described(ec2, [{"Name": f"tag:{OWNER_TAG}", "Values": [owner]}], page=PAGE_SIZE)


def by_ids(ec2: "EC2Client", instance_ids: Sequence[str]) -> list[Instance]:
    """Those of the instances that EC2 lists; a filter, because an unknown ID as such is an error. Blocks."""
    return _described(ec2, [{"Name": "instance-id", "Values": list(instance_ids)}]) if instance_ids else []


def parse(described: "InstanceTypeDef") -> Instance:
    """Take what matters from EC2's description."""
    tags = {tag.get("Key", ""): tag.get("Value", "") for tag in described.get("Tags", [])}
    return Instance(
        instance_id=described["InstanceId"],
        state=InstanceState(described["State"]["Name"]),
        private_ip=described.get("PrivateIpAddress") or None,
        owner=tags.get(OWNER_TAG),
        generation=_number(tags, GENERATION_TAG),
        attempt=_number(tags, ATTEMPT_TAG),
        launched_at=described["LaunchTime"],
        state_reason=described.get("StateReason", {}).get("Message", ""),
        zone=described.get("Placement", {}).get("AvailabilityZone", ""),
        workspace_id=tags.get(WORKSPACE_TAG),
        protected=PROTECT_TAG in tags,
    )


def of_launch(instances: Iterable[Instance], *, generation: int, attempt: int) -> Instance | None:
    """The instance of a launch. Should there be two, all look at the same one: the oldest alive."""
    return min(
        (instance for instance in instances if instance.launch == (generation, attempt)),
        key=lambda instance: (instance.terminated, instance.launched_at, instance.instance_id),
        default=None,
    )


def _described(
    ec2: "EC2Client", filters: "list[FilterTypeDef]", *, page: int | None = None
) -> list[Instance]:
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=filters, PaginationConfig={} if page is None else {"PageSize": page}
    )
    return [
        parse(described)
        for page in pages
        for reservation in page["Reservations"]
        for described in reservation.get("Instances", [])
    ]


def _number(tags: Mapping[str, str], key: str) -> int:
    text = tags.get(key, "")
    return int(text) if text.isascii() and text.isdigit() else 0
