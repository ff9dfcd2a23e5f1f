"""AWS clients of the checks, and findings for AWS errors.

Mutations are dry runs, or requests that AWS must refuse.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from activities.aws import errors
from cli.doctor.model import Finding, failed, ok, skipped, warning

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_route53 import Route53Client

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0

THREADS = 8

POLICY = "deploy/iam-policy.json (see docs/iam.md)"

DRY_RUN_SUCCEEDED = "DryRunOperation"
"""EC2's error code for a dry run that would have succeeded."""

T = TypeVar("T")


class StsClient(Protocol):
    """The STS calls in use."""

    def get_caller_identity(self) -> Mapping[str, str]:
        """The identity of the credentials."""

    def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsError:
    """An error of AWS or of the connection to it."""

    code: str
    message: str
    unreachable: bool = False
    """Whether there was no response."""

    @property
    def denied(self) -> bool:
        """Whether a permission is missing."""
        return errors.is_denied(self.code)


class AwsClients:
    """Clients configured like the worker's, with threads for their blocking calls.

    Raises `BotoCoreError` if there is no region or the profile is invalid.
    """

    def __init__(self, *, region: str | None) -> None:
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=THREADS,
            user_agent_extra="onebox",
        )
        self.session = boto3.session.Session(region_name=region)
        self.ec2: EC2Client = self.session.client("ec2", config=config)
        self.route53: Route53Client = self.session.client("route53", config=config)
        # The type stubs of STS are not installed.
        self.sts = cast("StsClient", self.session.client("sts", config=config))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="doctor")

    async def call(self, call: Callable[[], T]) -> T | AwsError:
        """The result of a call, or its error."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except ClientError as error:
            return AwsError(code=errors.code_of(error), message=errors.message_of(error))
        except BotoCoreError as error:
            return AwsError(code=type(error).__name__, message=str(error), unreachable=True)

    def close(self) -> None:
        """Close the connections; a pending call ends with its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.ec2.close()
        self.route53.close()
        self.sts.close()


def refused(check: str, action: str, error: AwsError, *variables: str) -> Finding:
    """The finding for a call that failed."""
    if error.unreachable:
        return failed(
            check,
            f"{action}: {error.message}",
            "Allow connections to AWS (or to AWS_ENDPOINT_URL, if set), and check AWS_REGION.",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
        )
    if error.denied:
        return failed(
            check,
            f"{action} is denied ({error.code})",
            f"Allow {action} for the worker's role: {POLICY}.",
            *variables,
        )
    return failed(
        check,
        f"{action}: {error.code}: {error.message}",
        errors.hint_of(error.code, error.message),
        *variables,
    )


def dry_run_finding(check: str, action: str, result: object, *, optional: bool = False) -> Finding:
    """The finding for the result of a dry run; `optional` if only some workspaces need the action."""
    if not isinstance(result, AwsError) or result.code == DRY_RUN_SUCCEEDED:
        return ok(check, f"{action} is allowed")
    if errors.is_not_found(result.code):
        return skipped(check, f"{action}: no resource to test with")
    finding = refused(check, action, result)
    if optional and result.denied:
        message = f"{finding.message}; workspaces with a data volume need it"
        return warning(check, message, finding.remedy, *finding.variables)
    return finding
