"""Calling AWS: boto3's clients, and threads for their blocking calls.

It decides nothing about calls or errors; Temporal retries, so botocore does not.
"""

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import boto3
from botocore.config import Config

from activities.aws.telemetry import instrument
from activities.shared.activity_context import shield_until_done

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_route53 import Route53Client

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
"""RunInstances answers within a few seconds. Together they bound what a worker's shutdown waits for."""

P = ParamSpec("P")
R = TypeVar("R")


class Aws:
    """The clients, and as many threads as there are activities that may call at once.

    Endpoint and credentials come from boto3's own standard configuration, the region too if it isn't given.
    """

    def __init__(self, *, threads: int, region: str | None = None) -> None:
        config = Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            max_pool_connections=threads,
            user_agent_extra="onebox",
        )
        session = boto3.session.Session(region_name=region)
        self.ec2: EC2Client = session.client("ec2", config=config)
        self.route53: Route53Client = session.client("route53", config=config)
        for client in (self.ec2, self.route53):
            instrument(client.meta.events)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="aws")

    async def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a blocking call on a thread. A cancellation waits for its end, bounded by the timeouts."""
        loop = asyncio.get_running_loop()
        # The thread gets what is known here of whose call it is: names for log lines, the span above it.
        work = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
        return await shield_until_done(loop.run_in_executor(self._threads, work))

    def close(self) -> None:
        """End the threads, then the connections."""
        self._threads.shutdown()
        self.ec2.close()
        self.route53.close()

    def __enter__(self) -> "Aws":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
