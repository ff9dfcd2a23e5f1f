"""Asking AWS: the clients of the checks, and each answer or refusal as a value.

It changes nothing: mutations are asked for as dry runs, or in a form that AWS is certain to refuse.
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
"""EC2's word that the call would have been done."""

T = TypeVar("T")


class StsClient(Protocol):
    """What is asked of STS."""

    def get_caller_identity(self) -> Mapping[str, str]:
        """Who we are."""

    def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsError:
    """AWS's no, or the network's."""

    code: str
    message: str
    unreachable: bool = False
    """Nobody answered."""

    @property
    def denied(self) -> bool:
        """Whether a permission is missing."""
        return errors.is_denied(self.code)


class AwsClients:
    """The clients, configured as the worker's are, and threads for their blocking calls.

    Raises `BotoCoreError` if there is no region, or the profile can't be read.
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
        # Its stubs are not installed for one call.
        self.sts = cast("StsClient", self.session.client("sts", config=config))
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="doctor")

    async def call(self, call: Callable[[], T]) -> T | AwsError:
        """The answer, or why there is none."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except ClientError as error:
            return AwsError(code=errors.code_of(error), message=errors.message_of(error))
        except BotoCoreError as error:
            return AwsError(code=type(error).__name__, message=str(error), unreachable=True)

    def close(self) -> None:
        """Close the connections; a call that still waits is left to its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.ec2.close()
        self.route53.close()
        self.sts.close()


def refused(check: str, action: str, refusal: AwsError, *variables: str) -> Finding:
    """A call that has to succeed did not."""
    if refusal.unreachable:
        return failed(
            check,
            f"{action}: {refusal.message}",
            "Let the network pass to AWS (or to AWS_ENDPOINT_URL, if that is set), and check AWS_REGION.",
            "AWS_ENDPOINT_URL",
            "AWS_REGION",
        )
    if refusal.denied:
        return failed(
            check,
            f"{action} is denied ({refusal.code})",
            f"Allow {action} to the role of the worker: {POLICY}.",
            *variables,
        )
    return failed(
        check, f"{action}: {refusal.code}: {refusal.message}", errors.hint_of(refusal.code), *variables
    )


def dry_run_finding(check: str, action: str, answer: object, *, optional: bool = False) -> Finding:
    """What EC2 said to a dry run; `optional` if only some workspaces need the action."""
    if not isinstance(answer, AwsError) or answer.code == DRY_RUN_SUCCEEDED:
        return ok(check, f"{action} is allowed")
    if errors.is_not_found(answer.code):
        return skipped(check, f"{action}: there is nothing to try it on")
    finding = refused(check, action, answer)
    if optional and answer.denied:
        told = f"{finding.message}; workspaces with a data volume need it"
        return warning(check, told, finding.remedy, *finding.variables)
    return finding
