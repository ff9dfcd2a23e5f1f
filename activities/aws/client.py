"""boto3 clients, and a thread pool for their blocking calls.

botocore does not retry, because Temporal does.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import boto3
from botocore.config import Config

from activities.aws.telemetry import instrument

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_route53 import Route53Client

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
"""RunInstances takes a few seconds. Both timeouts bound how long a worker's shutdown waits for a call."""

P = ParamSpec("P")
R = TypeVar("R")


async def shield_until_done(work: Awaitable[R]) -> R:
    """Shield `work` from cancellation, wait for it, then re-raise the cancellation.

    A worker that shuts down must not leave a thread behind that still launches an instance.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it as never retrieved
        raise


class Aws:
    """The EC2 and Route 53 clients. `threads` is the maximum number of concurrent calls.

    boto3's standard configuration gives endpoint and credentials, and the region if `region` is None.
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
        """Run a blocking call on a thread. A cancellation waits until the call has ended or timed out."""
        loop = asyncio.get_running_loop()
        # The thread needs the log fields and the parent span of this context.
        work = partial(contextvars.copy_context().run, partial(function, *args, **kwargs))
        return await shield_until_done(loop.run_in_executor(self._threads, work))

    def close(self) -> None:
        """Wait for the threads to end, then close the connections."""
        self._threads.shutdown()
        self.ec2.close()
        self.route53.close()

    def __enter__(self) -> "Aws":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
