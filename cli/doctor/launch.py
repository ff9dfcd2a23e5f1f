"""Checks image, subnets and security groups of boxes, and launches a box as a dry run.

The dry run sends the same request as the worker.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, cast

from activities.user_data.render import InvalidUserData, compress, fill_secret, render_template
from activities.workspace import box_spec
from cli.doctor.aws_client import DRY_RUN_SUCCEEDED, AwsClients, AwsError, refused
from cli.doctor.model import Finding, failed, ok, warning
from workers import wiring
from workers.settings.worker import WorkerSettings

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import RunInstancesRequestTypeDef

WORKSPACE = "onebox-doctor"
"""The workspace ID in the tags of dry runs."""

NO_SECRET = "0" * 60
"""A placeholder in their user data, as long as a bootstrap secret."""

MAX_OFFERINGS = 12
"""Maximum number of combinations of type and subnet that are tried, one request each."""

MIN_FREE_ADDRESSES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnets:
    """The findings about the configured subnets, with their VPCs and zone."""

    findings: tuple[Finding, ...]
    vpcs: frozenset[str] = frozenset()
    zone: str | None = None
    """Availability zone of the first subnet."""


async def image(clients: AwsClients, settings: WorkerSettings) -> Finding:
    """Whether the image exists and is available."""
    check, image_id, variable = "ec2.image", settings.box_image_id, "BOX_IMAGE_ID"
    region = clients.ec2.meta.region_name
    listed = await clients.call(lambda: clients.ec2.describe_images(ImageIds=[image_id]))
    if isinstance(listed, AwsError):
        if listed.code.startswith("InvalidAMIID"):
            return failed(
                check,
                f"{image_id} does not exist in {region}, or is not shared with this account",
                f"Correct {variable}: images are regional.",
                variable,
            )
        return refused(check, "ec2:DescribeImages", listed, variable)
    if not listed["Images"]:
        return failed(check, f"{image_id} does not exist in {region}", f"Correct {variable}.", variable)
    found = listed["Images"][0]
    state = str(found.get("State", "available"))
    if state != "available":
        return failed(
            check, f"{image_id} is {state}", f"Wait for it, or set {variable} to another image.", variable
        )
    return ok(check, f"{image_id} is available ({found.get('Architecture', 'unknown architecture')})")


async def subnets(clients: AwsClients, settings: WorkerSettings) -> Subnets:
    """Whether all subnets exist, in one VPC, with free addresses."""
    check, variable, wanted = "ec2.subnets", "BOX_SUBNET_IDS", settings.box_subnet_ids
    if not wanted:
        return Subnets(findings=(ok(check, "none is set: boxes use the default VPC"),))
    listed = await clients.call(
        lambda: clients.ec2.describe_subnets(Filters=[{"Name": "subnet-id", "Values": list(wanted)}])
    )
    if isinstance(listed, AwsError):
        return Subnets(findings=(refused(check, "ec2:DescribeSubnets", listed, variable),))
    known = {str(one.get("SubnetId")): one for one in listed["Subnets"]}
    vpcs = frozenset(str(one.get("VpcId", "")) for one in known.values())
    zone = next((str(known[name].get("AvailabilityZone")) for name in wanted if name in known), None)
    missing = [name for name in wanted if name not in known]
    full = [name for name, one in known.items() if one.get("AvailableIpAddressCount", 0) < MIN_FREE_ADDRESSES]
    found: list[Finding] = []
    if missing:
        region = clients.ec2.meta.region_name
        message = f"{', '.join(missing)} cannot be found in {region}"
        found.append(failed(check, message, f"Correct {variable}, or AWS_REGION.", variable))
    if len(vpcs) > 1:
        message = f"the subnets are in several VPCs: {', '.join(sorted(vpcs))}"
        remedy = "Use subnets of one VPC: security groups and addresses belong to a VPC."
        found.append(warning(check, message, remedy, variable))
    if full:
        message = f"fewer than {MIN_FREE_ADDRESSES} addresses are free in {', '.join(full)}"
        found.append(warning(check, message, f"Add larger subnets to {variable}.", variable))
    if not found:
        found.append(ok(check, f"{len(known)} subnets in {', '.join(sorted(vpcs))}"))
    return Subnets(findings=tuple(found), vpcs=vpcs, zone=zone)


async def security_groups(clients: AwsClients, settings: WorkerSettings, where: Subnets) -> Finding:
    """Whether all security groups exist, in the VPC of the subnets."""
    check, variable, wanted = "ec2.security_groups", "BOX_SECURITY_GROUP_IDS", settings.box_security_group_ids
    if not wanted:
        return ok(check, "none is set: boxes use the VPC's default group")
    listed = await clients.call(
        lambda: clients.ec2.describe_security_groups(Filters=[{"Name": "group-id", "Values": list(wanted)}])
    )
    if isinstance(listed, AwsError):
        return refused(check, "ec2:DescribeSecurityGroups", listed, variable)
    vpcs = {str(one.get("GroupId")): str(one.get("VpcId", "")) for one in listed["SecurityGroups"]}
    if missing := [name for name in wanted if name not in vpcs]:
        message = f"{', '.join(missing)} cannot be found in {clients.ec2.meta.region_name}"
        return failed(check, message, f"Correct {variable}, or AWS_REGION.", variable)
    if where.vpcs and not set(vpcs.values()) <= where.vpcs:
        theirs, others = ", ".join(sorted(set(vpcs.values()))), ", ".join(sorted(where.vpcs))
        return failed(
            check,
            f"the groups are in {theirs}, the subnets in {others}",
            f"Set {variable} to groups in the VPC of BOX_SUBNET_IDS.",
            variable,
            "BOX_SUBNET_IDS",
        )
    return ok(check, f"{len(vpcs)} groups in {', '.join(sorted(set(vpcs.values())))}")


async def launch(clients: AwsClients, settings: WorkerSettings) -> Finding:
    """A dry run of each launch that the settings allow: every instance type in every subnet."""
    check, action = "ec2.RunInstances", "ec2:RunInstances"
    resolved = box_spec.resolve(wiring.box_defaults(settings), {})
    try:
        user_data = _user_data(settings)
    except InvalidUserData as error:
        return failed(check, str(error), "Correct BOX_RUNTIME_COMMAND.", "BOX_RUNTIME_COMMAND")
    tried = range(1, min(resolved.offerings, MAX_OFFERINGS) + 1)
    errors: dict[str, tuple[AwsError, list[str]]] = {}
    for attempt in tried:
        request = box_spec.run_instances_request(
            resolved, owner=settings.control_plane_id, workspace_id=WORKSPACE, generation=1, attempt=attempt
        )
        result = await clients.call(partial(_dry_run, clients, request, user_data))
        if isinstance(result, AwsError) and result.code != DRY_RUN_SUCCEEDED:
            instance_type, subnet = resolved.offering(attempt)
            place = f"{instance_type} in {subnet or 'the default subnets'}"
            errors.setdefault(result.code, (result, []))[1].append(place)
            if result.denied or result.unreachable:
                break  # the other requests would fail alike
    if not errors:
        return ok(check, f"a box can be launched: {len(tried)} of {resolved.offerings} offerings were tried")
    first, places = next(iter(errors.values()))
    finding = refused(check, action, first, *_variables_of(first.code))
    return failed(check, f"{finding.message} ({', '.join(places)})", finding.remedy, *finding.variables)


def _dry_run(clients: AwsClients, request: Mapping[str, object], user_data: bytes) -> object:
    # The dict was built for this call.
    parameters = cast("RunInstancesRequestTypeDef", {**request, "UserData": user_data, "DryRun": True})
    return clients.ec2.run_instances(**parameters)


def _user_data(settings: WorkerSettings) -> bytes:
    template = render_template(
        workspace_id=WORKSPACE,
        generation=1,
        register_api_url=settings.register_api_url,
        runtime_command=settings.box_runtime_command,
        runtime_user=settings.box_runtime_user,
        runtime_port=settings.box_runtime_port,
        configs_dir=settings.box_configs_dir,
        data_dir=settings.box_data_dir,
    )
    return compress(fill_secret(template, NO_SECRET))


def _variables_of(code: str) -> tuple[str, ...]:
    """The settings that an error code concerns."""
    for prefix, variables in (
        ("InvalidAMIID", ("BOX_IMAGE_ID",)),
        ("InvalidSubnetID", ("BOX_SUBNET_IDS",)),
        ("InvalidGroup", ("BOX_SECURITY_GROUP_IDS",)),
        ("InvalidParameter", ("BOX_INSTANCE_TYPES", "BOX_SECURITY_GROUP_IDS")),
        ("Unsupported", ("BOX_INSTANCE_TYPES",)),
    ):
        if code.startswith(prefix):
            return variables
    return ()
