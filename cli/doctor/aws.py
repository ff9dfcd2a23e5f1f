"""Looking at AWS as the worker reaches it: who we are, what boxes are made of, and what we may do.

Mutations are dry runs. DNS has a module of its own.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from botocore.exceptions import BotoCoreError

from cli.doctor import dns, launch, volumes
from cli.doctor.aws_client import AwsClients, AwsError, dry_run_finding, refused
from cli.doctor.model import Finding, clock_skew_seconds, failed, ok, skipped, warning
from cli.doctor.settings import LoadedSettings
from workers.settings.worker import WorkerSettings

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import DescribeInstancesResultTypeDef, FilterTypeDef

NO_INSTANCE = "i-00000000000000000"
"""No instance has this ID: EC2 may still say that the action is denied."""

SKEW_WARNING = 30.0
SKEW_FAILURE = 240.0
"""Seconds. AWS refuses requests that were signed more than five minutes ago."""


async def findings(settings: WorkerSettings, reading: LoadedSettings) -> list[Finding]:
    """All about AWS."""
    try:
        # boto3 reads megabytes of service models meanwhile: the other examinations go on.
        clients = await asyncio.to_thread(AwsClients, region=settings.aws_region)
    except BotoCoreError as error:
        return [
            failed(
                "aws.configuration",
                str(error),
                "Set AWS_REGION, or correct AWS's own configuration files (AWS_PROFILE, AWS_CONFIG_FILE).",
                "AWS_REGION",
            )
        ]
    try:
        return await _findings(clients, settings, reading)
    finally:
        clients.close()


async def _findings(clients: AwsClients, settings: WorkerSettings, reading: LoadedSettings) -> list[Finding]:
    identity = await _identity(clients)
    if identity.check == "aws.credentials" and identity.remedy and "no credentials" in identity.message:
        return [identity]
    found = [identity, *await _instances(clients, settings)]
    if reading.usable("BOX_IMAGE_ID"):
        found.append(await launch.image(clients, settings))
    subnets = await launch.subnets(clients, settings)
    found += subnets.findings
    found.append(await launch.security_groups(clients, settings, subnets))
    if reading.usable("BOX_IMAGE_ID", "BOX_RUNTIME_COMMAND", "REGISTER_API_URL"):
        found.append(await launch.launch(clients, settings))
    else:
        found.append(skipped("ec2.launch", "the settings of boxes cannot be used"))
    found += await volumes.findings(clients, settings, zone=subnets.zone)
    if reading.usable("DNS_ZONE_ID", "DNS_ZONE_NAME"):
        found += await dns.findings(clients, settings)
    return found


async def _identity(clients: AwsClients) -> Finding:
    check = "aws.credentials"
    if await clients.call(clients.session.get_credentials) is None:
        return failed(
            check,
            "there are no credentials",
            "Give the machine or container a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        )
    said = await clients.call(clients.sts.get_caller_identity)
    if not isinstance(said, AwsError):
        return ok(check, f"{said.get('Arn', 'unnamed')}, region {clients.ec2.meta.region_name}")
    if said.unreachable:
        return warning(
            check,
            f"STS does not answer, so who we are is not known: {said.message}",
            "Nothing but this check needs STS; with private subnets, add an endpoint for it.",
        )
    return failed(
        check,
        f"AWS does not accept our credentials: {said.code}",
        "Renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role; see the clock.",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    )


async def _instances(clients: AwsClients, settings: WorkerSettings) -> list[Finding]:
    """Listing boxes, the clock by which EC2 answered, and ending one of them, as a dry run."""
    filters: list[FilterTypeDef] = [
        {"Name": "tag:onebox:owner", "Values": [settings.control_plane_id]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopped"]},
    ]
    before = datetime.now(UTC)
    listed = await clients.call(lambda: clients.ec2.describe_instances(Filters=filters, MaxResults=5))
    after = datetime.now(UTC)
    if isinstance(listed, AwsError):
        return [
            refused("ec2.DescribeInstances", "ec2:DescribeInstances", listed),
            skipped("ec2.TerminateInstances", "no box is known"),
        ]
    box = _first_box(listed)
    ended = await clients.call(
        lambda: clients.ec2.terminate_instances(InstanceIds=[box or NO_INSTANCE], DryRun=True)
    )
    headers = listed["ResponseMetadata"].get("HTTPHeaders", {})
    return [
        ok("ec2.DescribeInstances", f"boxes of owner {settings.control_plane_id!r} can be listed"),
        _clock(headers, before, after),
        dry_run_finding("ec2.TerminateInstances", "ec2:TerminateInstances", ended),
    ]


def _first_box(listed: "DescribeInstancesResultTypeDef") -> str | None:
    instances = [
        one
        for each in listed["Reservations"]
        for one in cast("Sequence[Mapping[str, object]]", each.get("Instances", []))
    ]
    return str(instances[0]["InstanceId"]) if instances else None


def _clock(headers: Mapping[str, str], before: datetime, after: datetime) -> Finding:
    check = "aws.clock"
    try:
        skew = clock_skew_seconds(parsedate_to_datetime(headers["date"]), before, after)
    except (KeyError, ValueError):
        return skipped(check, "EC2 did not say what time it is")
    told = f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} EC2's"
    remedy = "Run NTP (chrony) on this machine: AWS refuses requests that are signed minutes off."
    if abs(skew) > SKEW_FAILURE:
        return failed(check, told, remedy)
    if abs(skew) > SKEW_WARNING:
        return warning(check, told, remedy)
    return ok(check, f"within {SKEW_WARNING:g} s of EC2's")
