"""Waiting for an instance to run: what comes before its address, and before its data volume.

It reads only; what follows from an instance that ended is not decided here.
"""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog

from activities import failures, inventory
from activities.aws import Aws
from activities.instances import Patience
from activities.inventory import Instance, InstanceState
from activities.ports import Address
from activities.volume_ports import AttachVolume
from store import launches
from store.pool import Pool, connection

UNLISTED_MEANS_GONE_AFTER = timedelta(minutes=5)
"""As old as a launch must be before its absence says anything. The fence asks for more proof than this."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The instance ended instead of running."""

    detail: str


async def once_running(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, patience: Patience
) -> Instance | Ended:
    """The instance once it runs. Raises if it may still come to that."""
    instance = await _settled(request, aws=aws, pool=pool, patience=patience)
    if instance is not None and instance.state is InstanceState.RUNNING:
        return instance
    detail = "EC2 no longer lists it" if instance is None else instance.state_reason or instance.state
    await log.ainfo("instance.ended", instance=request.instance_id, detail=detail)
    return Ended(detail=detail)


def still_pending(message: str) -> Exception:
    """It is looked at again."""
    return failures.try_again(
        "instance_pending", message, hint="EC2 is still starting the instance; it is waited for by itself."
    )


async def _settled(
    request: Address | AttachVolume, *, aws: Aws, pool: Pool, patience: Patience
) -> Instance | None:
    """The instance once it is no longer pending; None if EC2 has lost sight of an old one."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + patience.running.total_seconds()
    seen = False
    pauses = patience.pauses()
    while True:
        for instance in await aws.call(inventory.by_ids, aws.ec2, [request.instance_id]):
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
    if not seen and age is not None and age >= UNLISTED_MEANS_GONE_AFTER:
        return None
    raise still_pending(f"{request.instance_id} is {'pending' if seen else 'not listed yet'}")
