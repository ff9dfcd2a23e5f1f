"""Waiting for an instance to run: what comes before its address, and before its data volume.

It reads only; what follows from an instance that ended is not decided here.
"""

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
"""As old as a launch must be before its absence says anything. The fence asks for more proof than this."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEnded:
    """The instance ended instead of running."""

    detail: str


async def wait_until_running(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, patience: PollPolicy
) -> Instance | InstanceEnded:
    """The instance once it runs. Raises if it may still come to that."""
    instance = await _wait_while_pending(request, aws=aws, pool=pool, patience=patience)
    if instance is not None and instance.state is InstanceState.RUNNING:
        return instance
    detail = "EC2 no longer lists it" if instance is None else instance.state_reason or instance.state
    await log.ainfo("instance.ended", instance=request.instance_id, detail=detail)
    return InstanceEnded(detail=detail)


def pending_error(message: str) -> Exception:
    """It is looked at again."""
    return application_errors.retryable(
        "instance_pending", message, hint="EC2 is still starting the instance; it is waited for by itself."
    )


async def _wait_while_pending(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, patience: PollPolicy
) -> Instance | None:
    """The instance once it is no longer pending; None if EC2 has lost sight of an old one."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience.running.total_seconds()
    seen = False
    pauses = patience.pauses()
    while True:
        for instance in await aws.call(instances.by_ids, aws.ec2, [request.instance_id]):
            seen = True
            if instance.state is not InstanceState.PENDING:
                return instance
        if clock() >= deadline:
            break
        await asyncio.sleep(next(pauses))
    async with connection(pool) as conn:
        age = await launches.age(
            conn, request.workspace_id, generation=request.generation, attempt=request.attempt
        )
    if not seen and age is not None and age >= UNLISTED_GRACE:
        return None
    raise pending_error(f"{request.instance_id} is {'pending' if seen else 'not listed yet'}")
