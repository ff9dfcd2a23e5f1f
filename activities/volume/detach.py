"""Detaches a data volume from earlier boxes and waits until EC2 reports it as available.

Never detaches it from an instance that is not a box of the workspace.
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
"""EC2 lists a new volume after some minutes at most."""

log = structlog.get_logger()


class VolumeDetacher:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, poll_policy: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._poll_policy = poll_policy

    async def wait_until_detached(
        self,
        volume_id: str,
        *,
        by: DetachVolume | DeleteVolume,
        keep: str | None = None,
        may_be_missing: bool = False,
    ) -> bool:
        """Wait until the volume is attached to no instance; False if it is attached to `keep`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._poll_policy.termination.total_seconds()
        requested: set[str] = set()
        was_listed = False
        pauses = self._poll_policy.pauses()
        while True:
            volume = await self._aws.call(ebs.volume_by_id, self._aws.ec2, volume_id)
            was_listed = was_listed or volume is not None
            if volume is None and may_be_missing:
                return True
            if volume is not None and volume.available:
                return True
            holders = [one.instance_id for one in volume.attachments] if volume is not None else []
            if keep in holders:
                return False
            for instance_id in holders:
                if instance_id not in requested:
                    await self._detach(by, volume_id, instance_id)
                    requested.add(instance_id)
            if clock() >= deadline:
                if not was_listed:
                    await raise_if_lost(self._pool, by.workspace_id, volume_id)
                raise application_errors.retryable(
                    "volume_not_free",
                    f"{volume_id} is still attached to {', '.join(holders) or 'an unlisted instance'}",
                    hint="EC2 detaches a volume seconds after its instance terminated. No action is needed.",
                )
            await asyncio.sleep(next(pauses))

    async def _detach(self, by: DetachVolume | DeleteVolume, volume_id: str, instance_id: str) -> None:
        """Detach the volume from a box of the workspace. EC2 detaches it from a terminated one."""
        async with connection(self._pool) as conn, conn.transaction():
            workspace = await generations.lock(conn, by.workspace_id)
            # The attachments were read before this check, so they contain no box of a newer generation.
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
                f"{volume_id} is attached to {instance_id}, which is not a box of this workspace",
                hint="Detach the volume from that instance. Onebox then continues automatically.",
            )
        force = instance_id in dead
        await log.awarning("volume.detaching", volume=volume_id, instance=instance_id, force=force)
        await self._aws.call(ebs.detach, self._aws.ec2, volume_id, instance_id, force)


async def raise_if_lost(pool: Pool, workspace_id: str, volume_id: str) -> None:
    """Raise a final error if EC2 should list the volume by now. A lost volume is never replaced."""
    async with connection(pool) as conn:
        age = await volumes.age(conn, workspace_id)
    if age is not None and age >= UNLISTED_GRACE:
        raise application_errors.non_retryable(
            "volume_missing",
            f"EC2 no longer lists the data volume {volume_id} in this account and region",
            hint="Create a volume from the newest snapshot with the same tags, and write its ID into the "
            "table `volumes`; or delete the workspace. Onebox never replaces it with an empty volume.",
        )
