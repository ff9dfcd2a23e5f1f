"""Taking a data volume from the boxes before: waiting until EC2 has it as available, detaching if need be.

It attaches and deletes nothing, and takes nothing from an instance that is no box of the workspace.
"""

import asyncio
from datetime import timedelta

import structlog

from activities.aws import ebs, instances
from activities.aws.client import Aws
from activities.shared import application_errors
from activities.workspace.fence import PollPolicy
from store.db.pool import Pool, connection
from store.volume import volumes
from store.workspace import generations, launches
from workflows.volume.contract import DeleteVolume, DetachVolume

UNLISTED_GRACE = timedelta(minutes=5)
"""EC2's listings are late by minutes at most."""

log = structlog.get_logger()


class VolumeDetacher:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, patience: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._patience = patience

    async def wait_until_detached(
        self,
        volume_id: str,
        *,
        by: DetachVolume | DeleteVolume,
        keep: str | None = None,
        may_be_missing: bool = False,
    ) -> bool:
        """Wait until no instance has the volume; False if the one to keep has it."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience.termination.total_seconds()
        asked: set[str] = set()
        seen = False
        pauses = self._patience.pauses()
        while True:
            volume = await self._aws.call(ebs.volume_by_id, self._aws.ec2, volume_id)
            seen = seen or volume is not None
            if volume is None and may_be_missing:
                return True
            if volume is not None and volume.available:
                return True
            holders = [one.instance_id for one in volume.attachments] if volume is not None else []
            if keep in holders:
                return False
            for instance_id in holders:
                if instance_id not in asked:
                    await self._detach(by, volume_id, instance_id)
                    asked.add(instance_id)
            if clock() >= deadline:
                if not seen:
                    await raise_if_lost(self._pool, by.workspace_id, volume_id)
                raise application_errors.retryable(
                    "volume_not_free",
                    f"{volume_id} is still attached to {', '.join(holders) or 'what EC2 does not say'}",
                    hint="EC2 detaches a volume within seconds of its instance's end; it is waited for.",
                )
            await asyncio.sleep(next(pauses))

    async def _detach(self, by: DetachVolume | DeleteVolume, volume_id: str, instance_id: str) -> None:
        """Take it from a box of ours; one that is terminated lets go by itself."""
        async with connection(self._pool) as conn, conn.transaction():
            workspace = await generations.lock(conn, by.workspace_id)
            # Who has it was read before: a newer generation's box cannot be among them if there is none now.
            if workspace is None or workspace.generation > by.generation:
                raise application_errors.superseded(by.generation)
            ours = await launches.all_instances(conn, by.workspace_id)
            dead = await launches.declared_dead(conn, by.workspace_id)
        listed = await self._aws.call(instances.by_ids, self._aws.ec2, [instance_id])
        if any(instance.terminated for instance in listed):
            return
        if instance_id not in ours:
            raise application_errors.retryable(
                "volume_in_use",
                f"{volume_id} is attached to {instance_id}, which is no box of this workspace",
                hint="Somebody attached the data volume there. Detach it, and it goes on by itself.",
            )
        force = instance_id in dead
        await log.awarning("volume.detaching", volume=volume_id, instance=instance_id, force=force)
        await self._aws.call(ebs.detach, self._aws.ec2, volume_id, instance_id, force)


async def raise_if_lost(pool: Pool, workspace_id: str, volume_id: str) -> None:
    """Give up on a volume that was not listed all the time that was waited. It is never replaced."""
    async with connection(pool) as conn:
        age = await volumes.age(conn, workspace_id)
    if age is not None and age >= UNLISTED_GRACE:
        raise application_errors.non_retryable(
            "volume_missing",
            f"the data volume {volume_id} is not in this account and region any longer",
            hint="No empty one is put in its place: create a volume from its newest snapshot, with its tags, "
            "and write the ID into the table volumes; or delete the workspace.",
        )
