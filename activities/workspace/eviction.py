"""Eviction: terminates a superseded box that still calls, such as one that was wrongly declared dead.

Never touches an instance of the current generation or of another owner.
"""

import structlog
from temporalio import activity

from activities.aws import instances as aws_instances
from activities.aws.client import Aws
from activities.aws.termination import terminate
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.workspace import generations, launches
from workflows.workspace.contract import Evict, Evicted

log = structlog.get_logger()


class Eviction:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner

    @activity.defn(name="evict")
    async def evict(self, request: Evict) -> Evicted:
        """Terminate all live instances of a superseded generation, including those declared dead."""
        async with activity_context(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                if await generations.current(conn, request.workspace_id, request.generation) is not None:
                    return Evicted(instances=())
                recorded = await launches.instances_of_generation(
                    conn, request.workspace_id, request.generation
                )
            tagged = await self._aws.call(
                aws_instances.by_tags, self._aws.ec2, owner=self._owner, workspace_id=request.workspace_id
            )
            known = {instance.instance_id for instance in tagged}
            others = [instance_id for instance_id in recorded if instance_id not in known]
            listed = tagged + await self._aws.call(aws_instances.by_ids, self._aws.ec2, others)
            to_terminate = [
                instance
                for instance in listed
                if not instance.terminated
                and instance.owner in (self._owner, None)
                and (instance.instance_id in recorded or instance.generation == request.generation)
            ]
            await terminate(self._aws, to_terminate)
            instances = tuple(instance.instance_id for instance in to_terminate)
            await log.awarning("box.evicted", instances=instances)
            return Evicted(instances=instances)
