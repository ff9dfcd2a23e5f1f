"""Snapshots of the data volume before the next box gets it, and their end.

It never makes a recreate wait: a refusal is a result. Whether one is due is judged in `workflows.snapshots`.
"""

from uuid import UUID

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities import aws_codes, ebs, failures
from activities.aws import Aws
from activities.execution import execution, to_the_end
from activities.volume_ports import SnapshotVolume
from store import generations, snapshots, volumes
from store.pool import Pool, connection
from store.snapshots import Snapshot
from workflows.facts import SnapshotSettled
from workflows.snapshots import UNLISTED_MEANS_NEVER_MADE_AFTER, Past, Verdict, judge

BACKING_OFF = "snapshot_backing_off"

log = structlog.get_logger()


class Snapshots:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner

    @activity.defn(name="snapshot_volume")
    async def snapshot_volume(self, request: SnapshotVolume) -> SnapshotSettled:
        """Never a second one within 15 min or beside a pending one; a refusal is a result, not an error."""
        async with execution(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                volume = await volumes.read(conn, request.workspace_id)
                earlier = (
                    await snapshots.unfinished(conn, volume.volume_id)
                    if volume is not None and volume.volume_id is not None
                    else None
                )
            if volume is None or volume.volume_id is None:
                return SnapshotSettled(covered=True)
            if earlier is not None:
                await self._look_at(earlier)
            verdict, key = await self._decide(request)
            await log.ainfo("snapshot.judged", volume=volume.volume_id, verdict=verdict)
            if key is not None:
                return await to_the_end(self._take(request, volume.volume_id, key))
            if verdict is Verdict.BACKING_OFF:
                return SnapshotSettled(
                    code=BACKING_OFF, detail="EC2 refused one a moment ago, and is left in peace for a while"
                )
            return SnapshotSettled(covered=True)

    async def _look_at(self, earlier: Snapshot) -> None:
        """Learn what became of the one that is under way."""
        if earlier.snapshot_id is not None:
            found = await self._aws.call(ebs.snapshot_by_id, self._aws.ec2, earlier.snapshot_id)
        else:
            found = await self._aws.call(ebs.snapshot_by_key, self._aws.ec2, earlier.key)
        async with connection(self._pool) as conn:
            if found is not None:
                state: snapshots.State = (
                    "pending" if found.pending else "failed" if found.failed else "completed"
                )
                await snapshots.settle(conn, earlier.key, state=state, snapshot_id=found.snapshot_id)
                return
            now = await snapshots.clock(conn)
            if now - earlier.asked_at >= UNLISTED_MEANS_NEVER_MADE_AFTER:
                lost: snapshots.State = "never_made" if earlier.snapshot_id is None else "deleted"
                await snapshots.settle(conn, earlier.key, state=lost)

    async def _decide(self, request: SnapshotVolume) -> tuple[Verdict, UUID | None]:
        """Judge and, if one is due, write that down before the call; wishes take turns."""
        async with connection(self._pool) as conn, conn.transaction():
            if await generations.hold(conn, request.workspace_id, request.generation) is None:
                raise failures.superseded(request.generation)
            volume = await volumes.read(conn, request.workspace_id)
            if volume is None or volume.volume_id is None:
                return Verdict.RECENT, None
            past = Past(
                pending=await snapshots.unfinished(conn, volume.volume_id) is not None,
                asked_at=await snapshots.newest_asked_at(conn, volume.volume_id),
                refusals=volume.refusals,
                refused_at=volume.refused_at,
            )
            verdict = judge(past, await snapshots.clock(conn))
            if verdict is not Verdict.ASK:
                return verdict, None
            key = await snapshots.begin(
                conn, request.workspace_id, volume_id=volume.volume_id, generation=request.generation
            )
            return verdict, key

    async def _take(self, request: SnapshotVolume, volume_id: str, key: UUID) -> SnapshotSettled:
        try:
            snapshot_id = await self._aws.call(
                ebs.create_snapshot,
                self._aws.ec2,
                volume_id,
                key=key,
                owner=self._owner,
                workspace_id=request.workspace_id,
                generation=request.generation,
            )
        except ClientError as error:
            if not aws_codes.had_no_effect(error):
                raise  # it may exist: the row says so, and the next look finds it by its tag
            code = aws_codes.code_of(error)
            await log.awarning("snapshot.refused", volume=volume_id, code=code)
            async with connection(self._pool) as conn, conn.transaction():
                await snapshots.settle(conn, key, state="never_made")
                await snapshots.refused(conn, request.workspace_id)
            return SnapshotSettled(code=code, detail=aws_codes.message_of(error) or code)
        await log.ainfo("snapshot.asked", volume=volume_id, snapshot=snapshot_id)
        async with connection(self._pool) as conn, conn.transaction():
            await snapshots.settle(conn, key, state="pending", snapshot_id=snapshot_id)
            await snapshots.taken(conn, request.workspace_id)
        return SnapshotSettled(snapshot_id=snapshot_id)


async def delete_all(aws: Aws, pool: Pool, workspace_id: str) -> None:
    """Delete every snapshot of the workspace that the record knows, or the tag of a lost answer finds."""
    async with connection(pool) as conn:
        known = await snapshots.existing(conn, workspace_id)
    for snapshot in known:
        snapshot_id = snapshot.snapshot_id
        if snapshot_id is None:
            found = await aws.call(ebs.snapshot_by_key, aws.ec2, snapshot.key)
            snapshot_id = found.snapshot_id if found is not None else None
        if snapshot_id is not None:
            await aws.call(ebs.delete_snapshot, aws.ec2, snapshot_id)
            await log.ainfo("snapshot.deleted", snapshot=snapshot_id)
        async with connection(pool) as conn:
            await snapshots.mark_deleted(conn, snapshot.key)
