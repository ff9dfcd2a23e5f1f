"""Ending a superseded box that still calls, such as one that was declared dead and came back.

It touches no instance of the current generation, and none of another owner.
"""

import structlog
from temporalio import activity

from activities import inventory
from activities.aws import Aws
from activities.execution import execution
from activities.ports import Evict, Evicted
from activities.termination import terminate
from store import generations, launches
from store.pool import Pool, connection

log = structlog.get_logger()


class Eviction:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner

    @activity.defn(name="evict")
    async def evict(self, request: Evict) -> Evicted:
        """Terminate the instances of a superseded generation that are alive; those declared dead, too."""
        async with execution(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                if await generations.current(conn, request.workspace_id, request.generation) is not None:
                    return Evicted(instances=())
                recorded = await launches.instances(conn, request.workspace_id, request.generation)
            tagged = await self._aws.call(
                inventory.by_tags, self._aws.ec2, owner=self._owner, workspace_id=request.workspace_id
            )
            known = {instance.instance_id for instance in tagged}
            others = [instance_id for instance_id in recorded if instance_id not in known]
            listed = tagged + await self._aws.call(inventory.by_ids, self._aws.ec2, others)
            doomed = [
                instance
                for instance in listed
                if not instance.terminated
                and instance.owner in (self._owner, None)
                and (instance.instance_id in recorded or instance.generation == request.generation)
            ]
            await terminate(self._aws, doomed)
            instances = tuple(instance.instance_id for instance in doomed)
            await log.awarning("box.evicted", instances=instances)
            return Evicted(instances=instances)
