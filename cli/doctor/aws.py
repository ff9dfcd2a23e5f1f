"""Checks AWS as the worker uses it: credentials and instances here, the rest through other modules.

Mutations are dry runs.
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
"""No instance has this ID, but EC2 checks the permission first."""

SKEW_WARNING = 30.0
SKEW_FAILURE = 240.0
"""Seconds. AWS refuses requests that are signed more than five minutes off."""


async def findings(settings: WorkerSettings, loaded: LoadedSettings) -> list[Finding]:
    """All checks of AWS."""
    try:
        # boto3 reads megabytes of service models, which would block the other checks.
        clients = await asyncio.to_thread(AwsClients, region=settings.aws_region)
    except BotoCoreError as error:
        return [
            failed(
                "aws.configuration",
                str(error),
                "Set AWS_REGION, or correct AWS's configuration files (AWS_PROFILE, AWS_CONFIG_FILE).",
                "AWS_REGION",
            )
        ]
    try:
        return await _findings(clients, settings, loaded)
    finally:
        clients.close()


async def _findings(clients: AwsClients, settings: WorkerSettings, loaded: LoadedSettings) -> list[Finding]:
    identity = await _identity(clients)
    if identity.check == "aws.credentials" and identity.remedy and "no credentials" in identity.message:
        return [identity]
    found = [identity, *await _instances(clients, settings)]
    if loaded.usable("BOX_IMAGE_ID"):
        found.append(await launch.image(clients, settings))
    subnets = await launch.subnets(clients, settings)
    found += subnets.findings
    found.append(await launch.security_groups(clients, settings, subnets))
    if loaded.usable("BOX_IMAGE_ID", "BOX_RUNTIME_COMMAND", "REGISTER_API_URL"):
        found.append(await launch.launch(clients, settings))
    else:
        found.append(skipped("ec2.launch", "the settings of boxes are invalid"))
    found += await volumes.findings(clients, settings, zone=subnets.zone)
    if loaded.usable("DNS_ZONE_ID", "DNS_ZONE_NAME"):
        found += await dns.findings(clients, settings)
    return found


async def _identity(clients: AwsClients) -> Finding:
    check = "aws.credentials"
    if await clients.call(clients.session.get_credentials) is None:
        return failed(
            check,
            "there are no credentials",
            "Assign a role to the machine or container, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
        )
    response = await clients.call(clients.sts.get_caller_identity)
    if not isinstance(response, AwsError):
        return ok(check, f"{response.get('Arn', 'unnamed')}, region {clients.ec2.meta.region_name}")
    if response.unreachable:
        return warning(
            check,
            f"STS does not answer, so the identity is unknown: {response.message}",
            "Only this check needs STS. In private subnets, add a VPC endpoint for it.",
        )
    return failed(
        check,
        f"AWS does not accept the credentials: {response.code}",
        "Renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the role; check the clock.",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
    )


async def _instances(clients: AwsClients, settings: WorkerSettings) -> list[Finding]:
    """List boxes, compare clocks, and terminate a box as a dry run."""
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
            skipped("ec2.TerminateInstances", "instances cannot be listed"),
        ]
    box = _first_box(listed)
    terminated = await clients.call(
        lambda: clients.ec2.terminate_instances(InstanceIds=[box or NO_INSTANCE], DryRun=True)
    )
    headers = listed["ResponseMetadata"].get("HTTPHeaders", {})
    return [
        ok("ec2.DescribeInstances", f"boxes of owner {settings.control_plane_id!r} can be listed"),
        _clock(headers, before, after),
        dry_run_finding("ec2.TerminateInstances", "ec2:TerminateInstances", terminated),
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
        return skipped(check, "EC2's response has no date")
    message = f"this machine's clock is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} EC2's"
    remedy = "Run NTP (chrony) on this machine: AWS refuses requests that are signed minutes off."
    if abs(skew) > SKEW_FAILURE:
        return failed(check, message, remedy)
    if abs(skew) > SKEW_WARNING:
        return warning(check, message, remedy)
    return ok(check, f"within {SKEW_WARNING:g} s of EC2's")
