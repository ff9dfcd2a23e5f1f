"""Snapshots of the data volume before the next box gets it, and their deletion.

A snapshot never delays a recreate: a rejected call is a result. `workflows.volume.snapshot_policy` decides
whether one is due.
"""

from uuid import UUID

import structlog
from botocore.exceptions import ClientError
from temporalio import activity

from activities.aws import ebs, errors
from activities.aws.client import Aws, shield_until_done
from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from store.db.pool import Pool, connection
from store.volume import snapshots, volumes
from store.volume.snapshots import Snapshot
from store.workspace import generations
from workflows.volume.contract import SnapshotResult, SnapshotVolume
from workflows.volume.snapshot_policy import (
    UNLISTED_SNAPSHOT_LOST_AFTER,
    SnapshotDecision,
    SnapshotHistory,
    decide,
)

BACKING_OFF = "snapshot_backing_off"

log = structlog.get_logger()


class Snapshots:
    """Needs EC2 and PostgreSQL."""

    def __init__(self, *, aws: Aws, pool: Pool, owner: str) -> None:
        self._aws = aws
        self._pool = pool
        self._owner = owner

    @activity.defn(name="snapshot_volume")
    async def snapshot_volume(self, request: SnapshotVolume) -> SnapshotResult:
        """Create a snapshot unless one is pending or younger than 15 min. A rejected call is a result."""
        async with activity_context(request.workspace_id, request.generation):
            async with connection(self._pool) as conn:
                volume = await volumes.read(conn, request.workspace_id)
                unfinished = (
                    await snapshots.unfinished(conn, volume.volume_id)
                    if volume is not None and volume.volume_id is not None
                    else None
                )
            if volume is None or volume.volume_id is None:
                return SnapshotResult(covered=True)
            if unfinished is not None:
                await self._refresh(unfinished)
            decision, key = await self._decide(request)
            await log.ainfo("snapshot.decided", volume=volume.volume_id, decision=decision)
            if key is not None:
                return await shield_until_done(self._create(request, volume.volume_id, key))
            if decision is SnapshotDecision.BACKING_OFF:
                return SnapshotResult(
                    code=BACKING_OFF,
                    detail="EC2 rejected a recent snapshot; backing off before the next call",
                )
            return SnapshotResult(covered=True)

    async def _refresh(self, unfinished: Snapshot) -> None:
        """Update the state of an unfinished snapshot."""
        if unfinished.snapshot_id is not None:
            found = await self._aws.call(ebs.snapshot_by_id, self._aws.ec2, unfinished.snapshot_id)
        else:
            found = await self._aws.call(ebs.snapshot_by_key, self._aws.ec2, unfinished.key)
        async with connection(self._pool) as conn:
            if found is not None:
                state: snapshots.SnapshotState = (
                    "pending" if found.pending else "failed" if found.failed else "completed"
                )
                await snapshots.record_state(conn, unfinished.key, state=state, snapshot_id=found.snapshot_id)
                return
            now = await snapshots.database_time(conn)
            if now - unfinished.requested_at >= UNLISTED_SNAPSHOT_LOST_AFTER:
                lost: snapshots.SnapshotState = "lost" if unfinished.snapshot_id is None else "deleted"
                await snapshots.record_state(conn, unfinished.key, state=lost)

    async def _decide(self, request: SnapshotVolume) -> tuple[SnapshotDecision, UUID | None]:
        """Decide and, if a snapshot is due, record it before the call. Concurrent calls are serialized."""
        async with connection(self._pool) as conn, conn.transaction():
            if await generations.lock_current(conn, request.workspace_id, request.generation) is None:
                raise application_errors.superseded(request.generation)
            volume = await volumes.read(conn, request.workspace_id)
            if volume is None or volume.volume_id is None:
                return SnapshotDecision.RECENT, None
            history = SnapshotHistory(
                pending=await snapshots.unfinished(conn, volume.volume_id) is not None,
                asked_at=await snapshots.newest_requested_at(conn, volume.volume_id),
                refusals=volume.snapshot_failures,
                refused_at=volume.last_failed_at,
            )
            decision = decide(history, await snapshots.database_time(conn))
            if decision is not SnapshotDecision.ASK:
                return decision, None
            key = await snapshots.begin(
                conn, request.workspace_id, volume_id=volume.volume_id, generation=request.generation
            )
            return decision, key

    async def _create(self, request: SnapshotVolume, volume_id: str, key: UUID) -> SnapshotResult:
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
            if not errors.had_no_effect(error):
                raise  # the snapshot may exist: its row stays, and the next attempt finds it by its tag
            code = errors.code_of(error)
            await log.awarning("snapshot.refused", volume=volume_id, code=code)
            async with connection(self._pool) as conn, conn.transaction():
                await snapshots.record_state(conn, key, state="lost")
                await snapshots.record_failure(conn, request.workspace_id)
            return SnapshotResult(code=code, detail=errors.message_of(error) or code)
        await log.ainfo("snapshot.requested", volume=volume_id, snapshot=snapshot_id)
        async with connection(self._pool) as conn, conn.transaction():
            await snapshots.record_state(conn, key, state="pending", snapshot_id=snapshot_id)
            await snapshots.reset_failures(conn, request.workspace_id)
        return SnapshotResult(snapshot_id=snapshot_id)


async def delete_all(aws: Aws, pool: Pool, workspace_id: str) -> None:
    """Delete all snapshots of the workspace: recorded ones, and those found by tag after a lost response."""
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
