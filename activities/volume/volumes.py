"""The data volume of a workspace: created once, attached to one box at a time, deleted with the workspace.

The volume is detached from earlier boxes after they are terminated, and attached to the new box after that.
"""

import asyncio

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import ebs, errors
from activities.aws.client import Aws, shield_until_done
from activities.aws.ebs import Volume
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.volume.detach import UNLISTED_GRACE, VolumeDetacher, raise_if_lost
from activities.volume.snapshots import delete_all
from activities.workspace import box_spec
from activities.workspace.fence import PollPolicy
from activities.workspace.wait_running import InstanceEnded, wait_until_running
from store.db.pool import Pool, connection
from store.volume import volumes
from store.workspace import generations, launches
from workflows.volume.contract import AttachResult, AttachVolume, DeleteVolume, DetachVolume, VolumeDetached
from workflows.workspace.messages import DataVolume, WorkspaceSpec

log = structlog.get_logger()


class Volumes:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str, poll_policy: PollPolicy) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner
        self._poll_policy = poll_policy
        self._detacher = VolumeDetacher(aws=aws, pool=pool, poll_policy=poll_policy)

    @activity.defn(name="detach_volume")
    async def detach_volume(self, request: DetachVolume) -> VolumeDetached:
        """Detach the volume from earlier boxes and wait. Forces only boxes that were declared dead."""
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
        """Find the volume by record or tag, else create it with the stored ClientToken. Then attach it."""
        async with activity_context(request.workspace_id, request.generation):
            instance = await wait_until_running(
                request, aws=self._aws, pool=self._pool, poll_policy=self._poll_policy
            )
            if isinstance(instance, InstanceEnded):
                return AttachResult(gone=True, detail=instance.detail)
            volume_id = await self._recorded_id(request)
            if volume_id is None:
                volume_id = await shield_until_done(self._create(request, zone=instance.zone))
            return await self._wait_until_attached(request, volume_id)

    @activity.defn(name="delete_volume")
    async def delete_volume(self, request: DeleteVolume) -> None:
        """Delete the recorded and the tagged volumes, and the snapshots if the spec says so."""
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
            to_delete = {volume.volume_id for volume in tagged}
            if recorded is not None and recorded.volume_id is not None:
                to_delete.add(recorded.volume_id)
            elif recorded is not None and not to_delete and age is not None and age < UNLISTED_GRACE:
                # The response of CreateVolume was lost, and an empty list proves nothing yet.
                raise application_errors.retryable(
                    "volume_unclear",
                    "EC2 may have created a data volume that it does not list yet",
                    hint="Onebox looks for it by its tags until 5 min after the call. No action is needed.",
                )
            for volume_id in sorted(to_delete):
                await self._detacher.wait_until_detached(volume_id, by=request, may_be_missing=True)
                await self._aws.call(ebs.delete_volume, self._aws.ec2, volume_id)
                await log.ainfo("volume.deleted", volume=volume_id)
            if WorkspaceSpec.model_validate(workspace.spec).delete_snapshots:
                await delete_all(self._aws, self._pool, workspace_id)
            async with connection(self._pool) as conn:
                await volumes.mark_deleted(conn, workspace_id)

    async def _recorded_id(self, request: AttachVolume) -> str | None:
        """The recorded volume ID; None if there is none. Raises if the generation is not current."""
        async with connection(self._pool) as conn:
            if await generations.current(conn, request.workspace_id, request.generation) is None:
                raise application_errors.superseded(request.generation)
            volume = await volumes.read(conn, request.workspace_id)
        return volume.volume_id if volume is not None else None

    async def _create(self, request: AttachVolume, *, zone: str) -> str:
        """The volume with the workspace's tags, else a new one."""
        workspace_id = request.workspace_id
        async with connection(self._pool) as conn, conn.transaction():
            opened = await generations.lock_current(conn, workspace_id, request.generation)
            if opened is None:
                raise application_errors.superseded(request.generation)
            spec = box_spec.load(opened.spec).data_volume or DataVolume()
            prepared = await volumes.prepare(
                conn,
                workspace_id,
                client_token=ebs.client_token(self._owner, workspace_id),
                request=ebs.create_volume_request(
                    spec, zone=zone, owner=self._owner, workspace_id=workspace_id
                ),
                zone=zone,
            )
            if prepared.volume_id is not None:
                return prepared.volume_id
            # As with a launch, the mark is set before the call, so that a lost response is not forgotten.
            mark = await volumes.mark_requested(conn, workspace_id)
        tagged = await self._aws.call(
            ebs.volumes_by_tags, self._aws.ec2, owner=self._owner, workspace_id=workspace_id
        )
        if tagged:
            await log.ainfo("volume.adopted", volume=tagged[0].volume_id)
            return await self._record(workspace_id, tagged[0])
        try:
            created = await self._aws.call(
                ebs.create_volume, self._aws.ec2, prepared.request, prepared.client_token
            )
        except ClientError as error:
            if errors.had_no_effect(error) and prepared.requested_at is None:
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
        deadline = clock() + self._poll_policy.running.total_seconds()
        listed = False
        pauses = self._poll_policy.pauses()
        while True:
            expired = clock() >= deadline  # before the poll: each attach is followed by at least one poll
            volume = await self._aws.call(ebs.volume_by_id, self._aws.ec2, volume_id)
            listed = listed or volume is not None
            if volume is not None:
                others = [one for one in volume.attachments if one.instance_id != request.instance_id]
                if others:
                    return AttachResult(occupied_by=others[0].instance_id)
                if any(one.attached for one in volume.attachments):
                    await log.ainfo("volume.attached", volume=volume_id, instance=request.instance_id)
                    return AttachResult(volume_id=volume_id)
                if volume.available and not expired:
                    await shield_until_done(self._attach(request, volume_id))
            if expired:
                if not listed:
                    await raise_if_lost(self._pool, request.workspace_id, volume_id)
                raise application_errors.retryable(
                    "volume_not_attached",
                    f"{volume_id} is {volume.state if volume else 'not listed yet'}, "
                    f"and not attached to {request.instance_id}",
                    hint="EC2 is still creating or attaching the data volume. No action is needed.",
                )
            await asyncio.sleep(next(pauses))

    async def _attach(self, request: AttachVolume, volume_id: str) -> None:
        # One transaction locks the generation and sets the mark. Either a newer generation is opened first
        # and this call does not happen, or the newer generation sees where the volume may be attached.
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
            # The list was late: the next poll shows the attachment.
            await log.ainfo("volume.in_use", volume=volume_id)
