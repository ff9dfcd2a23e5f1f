"""The data volume of a workspace: created once, at one box at a time, deleted with the workspace.

It launches and ends no instance. EC2 refuses to attach a volume twice; what is done here leaves it nothing to
refuse: a volume is detached from the boxes before once they are gone, and only then attached.
"""

import asyncio

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import ebs, errors
from activities.aws.client import Aws
from activities.aws.ebs import Volume
from activities.shared import application_errors
from activities.shared.activity_context import activity_context, shield_until_done
from activities.volume.detach import UNLISTED_GRACE, VolumeDetacher, raise_if_lost
from activities.volume.snapshots import delete_all
from activities.workspace import box_spec
from activities.workspace.fence import PollPolicy
from activities.workspace.wait_running import InstanceEnded, wait_until_running
from store.db.pool import Pool, connection
from store.volume import volumes
from store.workspace import generations, launches
from workflows.volume.contract import AttachVolume, DeleteVolume, DetachVolume
from workflows.workspace.events import AttachResult, VolumeDetached
from workflows.workspace.messages import DataVolume, WorkspaceSpec

log = structlog.get_logger()


class Volumes:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, patience: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._patience = patience
        self._detacher = VolumeDetacher(aws=aws, pool=pool, patience=patience)

    @activity.defn(name="detach_volume")
    async def detach_volume(self, request: DetachVolume) -> VolumeDetached:
        """Detach it from our boxes only, by force only from one that was declared dead, until available."""
        async with activity_context(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                if await generations.current(conn, request.workspace_id, request.generation) is None:
                    raise application_errors.superseded(request.generation)
                volume = await volumes.read(conn, request.workspace_id)
                own = await launches.instance_of(
                    conn, request.workspace_id, generation=request.generation, attempt=request.attempt
                )
            if volume is None or volume.volume_id is None:
                return VolumeDetached()
            if not await self._detacher.wait_until_detached(volume.volume_id, by=request, keep=own):
                return VolumeDetached(kept=True)
            async with connection(self._pool) as conn:
                await volumes.mark_detached(conn, request.workspace_id, generation=request.generation)
            await log.ainfo("volume.free", volume=volume.volume_id)
            return VolumeDetached()

    @activity.defn(name="attach_volume")
    async def attach_volume(self, request: AttachVolume) -> AttachResult:
        """Find it by record or tag, else CreateVolume with the durable ClientToken; then attach it."""
        async with activity_context(request.workspace_id, request.generation):
            instance = await wait_until_running(
                request, aws=self._aws, pool=self._pool, patience=self._patience
            )
            if isinstance(instance, InstanceEnded):
                return AttachResult(gone=True, detail=instance.detail)
            volume_id = await self._recorded_id(request)
            if volume_id is None:
                volume_id = await shield_until_done(self._create(request, zone=instance.zone))
            return await self._wait_until_attached(request, volume_id)

    @activity.defn(name="delete_volume")
    async def delete_volume(self, request: DeleteVolume) -> None:
        """Delete it, by record and by tag; its snapshots too if the spec says so."""
        workspace_id = request.workspace_id
        async with activity_context(workspace_id, request.generation):
            async with connection(self._pool) as conn, conn.transaction():
                workspace = await generations.lock(conn, workspace_id)
                recorded = await volumes.read(conn, workspace_id)
                age = await volumes.age(conn, workspace_id)
            if workspace is None or workspace.current:
                raise application_errors.superseded(request.generation, by="the workspace is not closed")
            tagged = await self._aws.call(
                ebs.volumes_by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
            )
            doomed = {volume.volume_id for volume in tagged}
            if recorded is not None and recorded.volume_id is not None:
                doomed.add(recorded.volume_id)
            elif recorded is not None and not doomed and age is not None and age < UNLISTED_GRACE:
                # The answer of CreateVolume was lost, and an empty list proves nothing yet.
                raise application_errors.retryable(
                    "volume_unclear",
                    "whether EC2 has created the data volume is not clear yet",
                    hint="It is looked for by its tags until 5 min after the call, and deleted if found.",
                )
            for volume_id in sorted(doomed):
                await self._detacher.wait_until_detached(volume_id, by=request, may_be_missing=True)
                await self._aws.call(ebs.delete_volume, self._aws.ec2, volume_id)
                await log.ainfo("volume.deleted", volume=volume_id)
            if WorkspaceSpec.model_validate(workspace.spec).delete_snapshots:
                await delete_all(self._aws, self._pool, workspace_id)
            async with connection(self._pool) as conn:
                await volumes.mark_deleted(conn, workspace_id)

    async def _recorded_id(self, request: AttachVolume) -> str | None:
        """The volume's ID, if the record has it and the generation is the current one."""
        async with connection(self._pool) as conn:
            if await generations.current(conn, request.workspace_id, request.generation) is None:
                raise application_errors.superseded(request.generation)
            volume = await volumes.read(conn, request.workspace_id)
        return volume.volume_id if volume is not None else None

    async def _create(self, request: AttachVolume, *, zone: str) -> str:
        """The volume that has our tags, or a new one."""
        workspace_id = request.workspace_id
        async with connection(self._pool) as conn, conn.transaction():
            opened = await generations.lock_current(conn, workspace_id, request.generation)
            if opened is None:
                raise application_errors.superseded(request.generation)
            wanted = box_spec.load(opened.spec).data_volume or DataVolume()
            frozen = await volumes.prepare(
                conn,
                workspace_id,
                client_token=ebs.client_token(self._owner, workspace_id),
                request=ebs.create_volume_request(
                    wanted, zone=zone, owner=self._owner, workspace_id=workspace_id
                ),
                zone=zone,
            )
            if frozen.volume_id is not None:
                return frozen.volume_id
            # As with a launch: the mark stands before the call, and what has it can't be forgotten.
            mark = await volumes.mark_requested(conn, workspace_id)
        tagged = await self._aws.call(
            ebs.volumes_by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
        )
        if tagged:
            await log.ainfo("volume.adopted", volume=tagged[0].volume_id)
            return await self._record(workspace_id, tagged[0])
        try:
            created = await self._aws.call(
                ebs.create_volume, self._aws.ec2, frozen.request, frozen.client_token
            )
        except ClientError as error:
            if errors.had_no_effect(error) and frozen.requested_at is None:
                async with connection(self._pool) as conn:
                    await volumes.forget_request(conn, workspace_id, mark=mark)
            raise
        await log.ainfo("volume.created", volume=created.volume_id, zone=created.zone)
        return await self._record(workspace_id, created)

    async def _record(self, workspace_id: str, volume: Volume) -> str:
        async with connection(self._pool) as conn:
            await volumes.record_created(
                conn,
                workspace_id,
                volume_id=volume.volume_id,
                zone=volume.zone,
                created_at=volume.created_at,
            )
            recorded = await volumes.read(conn, workspace_id)
        return recorded.volume_id if recorded and recorded.volume_id else volume.volume_id

    async def _wait_until_attached(self, request: AttachVolume, volume_id: str) -> AttachResult:
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._patience.running.total_seconds()
        seen = False
        pauses = self._patience.pauses()
        while True:
            late = clock() >= deadline  # before the look: what an attachment came to is always looked at
            volume = await self._aws.call(ebs.volume_by_id, self._aws.ec2, volume_id)
            seen = seen or volume is not None
            if volume is not None:
                others = [one for one in volume.attachments if one.instance_id != request.instance_id]
                if others:
                    return AttachResult(occupied_by=others[0].instance_id)
                if any(one.attached for one in volume.attachments):
                    await log.ainfo("volume.attached", volume=volume_id, instance=request.instance_id)
                    return AttachResult(volume_id=volume_id)
                if volume.available and not late:
                    await shield_until_done(self._attach(request, volume_id))
            if late:
                if not seen:
                    await raise_if_lost(self._pool, request.workspace_id, volume_id)
                raise application_errors.retryable(
                    "volume_not_attached",
                    f"{volume_id} is {volume.state if volume else 'not listed yet'}, "
                    f"and not attached to {request.instance_id}",
                    hint="EC2 is still creating or attaching the data volume; it is waited for by itself.",
                )
            await asyncio.sleep(next(pauses))

    async def _attach(self, request: AttachVolume, volume_id: str) -> None:
        # The mark and the generation's row are one transaction: either a newer generation is opened first and
        # this call doesn't happen, or that one finds whom the volume may be attached to.
        async with connection(self._pool) as conn, conn.transaction():
            if await generations.lock_current(conn, request.workspace_id, request.generation) is None:
                raise application_errors.superseded(request.generation)
            await volumes.mark_attaching(
                conn,
                request.workspace_id,
                instance_id=request.instance_id,
                generation=request.generation,
            )
        try:
            await self._aws.call(ebs.attach, self._aws.ec2, volume_id, request.instance_id)
        except ClientError as error:
            if errors.code_of(error) != "VolumeInUse":
                raise
            # The list was late: the next look says by whom.
            await log.ainfo("volume.in_use", volume=volume_id)
