"""Short forms of AWS calls for the tests of the AWS layer."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from devstack.processes import Child, accepts_connections

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import InstanceTypeDef
    from mypy_boto3_route53 import Route53Client
    from mypy_boto3_route53.literals import ChangeActionType

IMAGE = "ami-12c6146b"

PATIENCE_SECONDS = 90.0
"""All of it takes a second on an idle machine; a busy one may stall any process for several seconds."""


@dataclass(frozen=True, slots=True)
class Clients:
    """boto3 clients of the endpoint."""

    ec2: "EC2Client"
    route53: "Route53Client"


def endpoint_process(directory: Path, port: int, *options: str) -> Child:
    """An endpoint whose instances change their states quickly."""
    return Child(
        "aws",
        [
            *(sys.executable, "-m", "devstack.aws", "--port", str(port)),
            *("--pending-seconds", "0.2", "--terminating-seconds", "0.2", *options),
        ],
        log=directory / "aws.log",
    )


def wait_for_endpoint(process: Child, port: int) -> str:
    """Wait until it listens, and return its URL."""
    process.wait_ready(lambda: accepts_connections(port), seconds=PATIENCE_SECONDS)
    return f"http://127.0.0.1:{port}"


def launch(
    clients: Clients,
    workspace: str,
    token: str,
    *,
    generation: int = 1,
    user_data: str = "#!/bin/sh",
    zone: str = "",
) -> "InstanceTypeDef":
    """Launch a box."""
    response = clients.ec2.run_instances(
        ImageId=IMAGE,
        MinCount=1,
        MaxCount=1,
        InstanceType="t3.micro",
        ClientToken=token,
        UserData=user_data,
        InstanceInitiatedShutdownBehavior="terminate",
        Placement={"AvailabilityZone": zone} if zone else {},
        TagSpecifications=[
            {
                "ResourceType": "instance",
                "Tags": [
                    {"Key": "onebox:workspace", "Value": workspace},
                    {"Key": "onebox:generation", "Value": str(generation)},
                ],
            }
        ],
    )
    return response["Instances"][0]


def listed(clients: Clients, workspace: str, *states: str) -> list["InstanceTypeDef"]:
    """The workspace's instances in those states, found by EC2's filters."""
    filters = [{"Name": "tag:onebox:workspace", "Values": [workspace]}]
    if states:
        filters.append({"Name": "instance-state-name", "Values": list(states)})
    pages = clients.ec2.describe_instances(Filters=filters)  # type: ignore[arg-type]
    return [instance for item in pages["Reservations"] for instance in item["Instances"]]


def change_name(
    clients: Clients, zone: str, *changes: tuple["ChangeActionType", str, str], ttl: int = 60
) -> None:
    """Change A records, as (action, name, address), in one batch."""
    clients.route53.change_resource_record_sets(
        HostedZoneId=zone,
        ChangeBatch={
            "Changes": [
                {
                    "Action": action,
                    "ResourceRecordSet": {
                        "Name": name,
                        "Type": "A",
                        "TTL": ttl,
                        "ResourceRecords": [{"Value": address}],
                    },
                }
                for action, name, address in changes
            ]
        },
    )


def addresses(clients: Clients, zone: str) -> dict[str, list[str]]:
    """The A records of the zone."""
    records = clients.route53.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]
    return {
        record["Name"]: [value["Value"] for value in record["ResourceRecords"]]
        for record in records
        if record["Type"] == "A"
    }


def code_of(error: ClientError) -> str:
    """AWS's error code."""
    return error.response["Error"]["Code"]


def eventually(condition: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until the condition holds; fail on timeout."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
