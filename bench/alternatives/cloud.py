"""How the alternative designs launch and terminate boxes: with plain boto3.

Rationale of such a team: instances are found by their tag, because a table of them would have to be kept in
sync. RunInstances gets no ClientToken, because botocore generates one per call and reuses it for retries. The
DNS name is set by UPSERT, because the newest box is the right one.
"""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import boto3

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_route53 import Route53Client

WORKSPACE_TAG = "onebox:workspace"
"""The tag by which the benchmarks' AWS endpoint counts; a team would choose its own."""

POLL_SECONDS = 0.3
"""Poll interval. Where instances take 40 s, boto3's waiters poll every 15 s."""

ALIVE = ["pending", "running"]

USER_DATA = """#!/usr/bin/env python3
import os, sys
os.environ.update({environment!r})
os.execv(sys.executable, [sys.executable, "-m", "devstack.runtime"])
"""
"""The image's entry point: the runtime of the field, unmodified, with its identity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """A running box."""

    instance_id: str
    private_ip: str


class Cloud:
    """Clients of EC2 and Route 53, configured by environment variables."""

    def __init__(self, platform_url: str) -> None:
        self._platform_url = platform_url
        self._ec2: EC2Client = boto3.client("ec2")
        self._route53: Route53Client = boto3.client("route53")

    def deprovision(self, workspace_id: str, *, wait: bool) -> None:
        """Terminate the workspace's instances; `wait` until they have ended."""
        alive = self._listed(workspace_id, ALIVE)
        if not alive:
            return
        self._ec2.terminate_instances(InstanceIds=alive)
        while wait and set(alive) & set(self._listed(workspace_id, [*ALIVE, "shutting-down"])):
            time.sleep(POLL_SECONDS)

    def provision(self, workspace_id: str) -> Launched:
        """Launch a box, wait until it runs, and point the DNS name at it."""
        answer = self._ec2.run_instances(
            ImageId=os.environ["BOX_IMAGE_ID"],
            InstanceType="t3.small",
            SubnetId=os.environ["BOX_SUBNET_IDS"].split(",")[0],
            MinCount=1,
            MaxCount=1,
            UserData=USER_DATA.format(
                environment={
                    "WORKSPACE_ID": workspace_id,
                    "PLATFORM_URL": self._platform_url,
                    "RUNTIME_PORT": os.environ["BOX_RUNTIME_PORT"],
                }
            ),
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": WORKSPACE_TAG, "Value": workspace_id}]}
            ],
        )
        instance = answer["Instances"][0]["InstanceId"]
        while instance not in self._listed(workspace_id, ["running"]):
            time.sleep(POLL_SECONDS)
        launched = Launched(
            instance_id=instance, private_ip=answer["Instances"][0].get("PrivateIpAddress", "")
        )
        self._point(workspace_id, launched.private_ip)
        return launched

    def _listed(self, workspace_id: str, states: list[str]) -> list[str]:
        answer = self._ec2.describe_instances(
            Filters=[
                {"Name": f"tag:{WORKSPACE_TAG}", "Values": [workspace_id]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
        return [each["InstanceId"] for group in answer["Reservations"] for each in group["Instances"]]

    def _point(self, workspace_id: str, address: str) -> None:
        self._route53.change_resource_record_sets(
            HostedZoneId=os.environ["DNS_ZONE_ID"],
            ChangeBatch={
                "Changes": [
                    {
                        "Action": "UPSERT",
                        "ResourceRecordSet": {
                            "Name": f"{workspace_id}.{os.environ['DNS_ZONE_NAME']}",
                            "Type": "A",
                            "TTL": 10,
                            "ResourceRecords": [{"Value": address}],
                        },
                    }
                ]
            },
        )
