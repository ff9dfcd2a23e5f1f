"""EC2 instances, listed by tags or IDs. Read-only.

DescribeInstances is eventually consistent: a list may be late or empty.
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
"""On data volumes only. The root volumes of boxes have the tags above, too."""
PROTECT_TAG = "onebox:protect"
"""Set by operators, with any value: the orphan sweep leaves the instance alone."""

PAGE_SIZE = 500
"""Instances per page: a fleet takes a few requests, and none of them is slow."""


class InstanceState(StrEnum):
    """Instance states of EC2."""

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
    """0, which is older than any generation, if the tag is missing or not a number."""
    attempt: int
    launched_at: datetime
    state_reason: str
    zone: str = ""
    workspace_id: str | None = None
    protected: bool = False

    @property
    def terminated(self) -> bool:
        """Whether it is terminated. An instance that is shutting down may still write."""
        return self.state is InstanceState.TERMINATED

    @property
    def launch(self) -> tuple[int, int]:
        """Generation and attempt from its tags. They order launches."""
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
    """The instances that EC2 lists. Uses a filter: an unknown ID in `InstanceIds` is an error. Blocks."""
    return _described(ec2, [{"Name": "instance-id", "Values": list(instance_ids)}]) if instance_ids else []


def parse(described: "InstanceTypeDef") -> Instance:
    """Convert EC2's description of an instance."""
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
    """The instance of a launch. If there are two, every caller gets the same one: the oldest alive."""
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
