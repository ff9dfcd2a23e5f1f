"""Calls TerminateInstances. Callers decide which instances to terminate."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
from botocore.exceptions import ClientError

from activities.aws import errors
from activities.aws.client import Aws
from activities.aws.instances import Instance

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = structlog.get_logger()


async def terminate(aws: Aws, instances: Iterable[Instance]) -> None:
    """Terminate each instance. Missing ones are ignored; a protected one raises after all others."""
    # One by one: EC2 rejects the whole batch if one instance is protected or unknown.
    protected: ClientError | None = None
    for instance in instances:
        try:
            await aws.call(_terminate, aws.ec2, instance.instance_id)
        except ClientError as error:
            if errors.is_protected(errors.code_of(error)):
                protected = error
            elif not errors.is_not_found(errors.code_of(error)):
                raise
        else:
            await log.ainfo("instance.terminating", instance=instance.instance_id)
    if protected is not None:
        raise protected


def _terminate(ec2: "EC2Client", instance_id: str) -> None:
    ec2.terminate_instances(InstanceIds=[instance_id])
