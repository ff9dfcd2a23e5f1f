"""Waits until an instance runs: the precondition of its address and its data volume. Read-only."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from activities.aws import instances
from activities.aws.client import Aws
from activities.aws.instances import Instance, InstanceState
from activities.shared import application_errors
from activities.workspace.fence import PollPolicy
from store.db.pool import Pool, connection
from store.workspace import launches
from workflows.volume.contract import AttachVolume
from workflows.workspace.contract import Address

UNLISTED_GRACE = timedelta(minutes=5)
"""Minimum age of a launch before an unlisted instance counts as ended. The fence requires more proof."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEnded:
    """The instance ended instead of running."""

    detail: str


async def wait_until_running(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, poll_policy: PollPolicy
) -> Instance | InstanceEnded:
    """The instance once it runs, or that it ended. Raises a retryable error if it is still pending."""
    instance = await _wait_while_pending(request, aws=aws, pool=pool, poll_policy=poll_policy)
    if instance is not None and instance.state is InstanceState.RUNNING:
        return instance
    detail = "EC2 no longer lists it" if instance is None else instance.state_reason or instance.state
    await log.ainfo("instance.ended", instance=request.instance_id, detail=detail)
    return InstanceEnded(detail=detail)


def pending_error(message: str) -> Exception:
    """A retryable error: the instance is not ready yet."""
    return application_errors.retryable(
        "instance_pending", message, hint="EC2 is still starting the instance. No action is needed."
    )


async def _wait_while_pending(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, poll_policy: PollPolicy
) -> Instance | None:
    """The instance once it is no longer pending; None if EC2 does not list it although it is old enough."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + poll_policy.running.total_seconds()
    listed = False
    pauses = poll_policy.pauses()
    while True:
        for instance in await aws.call(instances.by_ids, aws.ec2, [request.instance_id]):
            listed = True
            if instance.state is not InstanceState.PENDING:
                return instance
        if clock() >= deadline:
            break
        await asyncio.sleep(next(pauses))
    async with connection(pool) as conn:
        age = await launches.age(
            conn, request.workspace_id, generation=request.generation, attempt=request.attempt
        )
    if not listed and age is not None and age >= UNLISTED_GRACE:
        return None
    raise pending_error(f"{request.instance_id} is {'pending' if listed else 'not listed yet'}")
