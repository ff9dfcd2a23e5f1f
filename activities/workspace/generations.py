"""Enrolls a workspace, opens its generations, and closes it. PostgreSQL only."""

from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio import activity

from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.telemetry import metrics
from activities.workspace import box_spec, status_rows
from activities.workspace.box_spec import BoxDefaults, ResolvedSpec
from store.db.pool import Connection, Pool, connection
from store.registration.credentials import ServerKeys
from store.volume import volumes
from store.workspace import generations, status
from store.workspace.generations import LockedWorkspace
from workflows.shared.workspace_ids import InvalidWorkspaceId, check_workspace_id
from workflows.workspace.admission import KEPT_OUTCOMES
from workflows.workspace.contract import CloseWorkspace, Enroll, Enrolled, GenerationOpened, OpenGeneration
from workflows.workspace.enums import Intent, Phase, SnapshotPolicy
from workflows.workspace.messages import DataVolume
from workflows.workspace.requests import is_human

RECREATE_WINDOW = timedelta(hours=24)
"""The longest window of the recreate budget."""

log = structlog.get_logger()


class Generations:
    """Needs PostgreSQL, the ID of the current server key, and the worker's defaults for boxes."""

    def __init__(
        self, *, pool: Pool, keys: ServerKeys, defaults: BoxDefaults, heartbeat_stale: timedelta
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._defaults = defaults
        self._heartbeat_stale = heartbeat_stale

    @activity.defn(name="enroll")
    async def enroll(self, request: Enroll) -> Enrolled:
        """Create the record if it does not exist. An empty spec never overwrites a stored one."""
        workspace_id = request.workspace_id
        async with activity_context(workspace_id):
            try:
                check_workspace_id(workspace_id)
            except InvalidWorkspaceId as error:
                raise application_errors.non_retryable(
                    "invalid_workspace_id",
                    str(error),
                    hint="Start the workflow with a DNS label as ID: it becomes a host name and a tag.",
                ) from None
            async with connection(self._pool) as conn, conn.transaction():
                await generations.enroll(conn, workspace_id, spec=box_spec.overrides(request.spec))
                record = await generations.read(conn, workspace_id, heartbeat_fresh_for=self._heartbeat_stale)
                recreates = await status.accepted_recreates(conn, workspace_id, within=RECREATE_WINDOW)
                decided = await status.newest_requests(conn, workspace_id, limit=KEPT_OUTCOMES)
                volume = await volumes.read(conn, workspace_id)
            await log.ainfo("workspace.enrolled", current=record.current, at_generation=record.generation)
            opened = box_spec.load(record.opened_spec) if record.current and record.opened_spec else None
            return Enrolled(
                intent=Intent(record.intent),
                deleted=record.deleted,
                generation=record.generation,
                current=record.current,
                revision=record.revision,
                timings=box_spec.resolve(self._defaults, record.spec).timings,
                attempt=record.attempt,
                registered_at=record.registered_at,
                heartbeat_at=record.last_heartbeat_at,
                automatic=tuple(one.decided_at for one in recreates if not is_human(one.requested_by)),
                accepted=tuple(one.decided_at for one in recreates),
                credential_lost_at=record.credential_lost_at,
                agent_unresponsive_since=record.agent_unresponsive_since,
                agent_unresponsive_reason=record.agent_unresponsive_reason or "",
                has_volume=volume is not None or (opened is not None and opened.data_volume is not None),
                snapshots=opened.snapshot if opened is not None else SnapshotPolicy.OFF,
                decided=tuple(map(status_rows.request_of, decided)),
            )

    @activity.defn(name="open_generation")
    async def open_generation(self, request: OpenGeneration) -> GenerationOpened:
        """In one transaction: supersede the old generation, revoke its tokens, insert the new generation."""
        async with activity_context(request.workspace_id):
            async with connection(self._pool) as conn, conn.transaction():
                result, is_new = await self._open(conn, request)
            if is_new:
                metrics.GENERATIONS_OPENED.inc()
            return result

    async def _open(self, conn: Connection, request: OpenGeneration) -> tuple[GenerationOpened, bool]:
        """The open generation, and whether this call opened it."""
        workspace = await _lock_workspace(conn, request.workspace_id)
        if workspace.deleted or workspace.intent == Intent.DELETE:
            raise application_errors.non_retryable(
                "workspace_deleted",
                f"workspace {request.workspace_id} is deleted",
                hint="A deletion is final: create a workspace with a new ID.",
            )
        resolved = box_spec.resolve(self._defaults, workspace.spec)
        if workspace.generation > request.after:
            if not workspace.current:
                # A stop was accepted and closed the generation.
                raise application_errors.superseded(request.after + 1)
            await log.ainfo("generation.found_open", generation=workspace.generation)
            found = await generations.current(conn, request.workspace_id, workspace.generation)
            spec = box_spec.load(found.spec) if found is not None else resolved
            return _opened(workspace.generation, replace(spec, timings=resolved.timings)), False
        volume = await volumes.read(conn, request.workspace_id)
        if volume is not None and resolved.data_volume is None:
            # The workspace keeps its data volume even if its spec no longer has one.
            resolved = replace(resolved, data_volume=DataVolume())
        generation = max(workspace.generation, request.after) + 1
        await generations.open_generation(
            conn,
            request.workspace_id,
            generation=generation,
            key_id=self._keys.current,
            spec=box_spec.dump(resolved),
            phase=Phase.PROVISIONING if workspace.generation == 0 else Phase.RECREATING,
        )
        await log.ainfo("generation.opened", generation=generation)
        return _opened(generation, resolved), True

    @activity.defn(name="close_workspace")
    async def close_workspace(self, request: CloseWorkspace) -> None:
        """In one transaction: store the intent, supersede the generation, revoke its tokens."""
        async with (
            activity_context(request.workspace_id, request.generation),
            connection(self._pool) as conn,
            conn.transaction(),
        ):
            workspace = await _lock_workspace(conn, request.workspace_id)
            if workspace.generation > request.generation:
                raise application_errors.superseded(request.generation)
            if workspace.intent == Intent.DELETE:
                return  # a deletion is final: a late stop must not undo it
            await generations.close(
                conn, request.workspace_id, generation=request.generation, intent=request.intent
            )
            await log.ainfo("workspace.closed", intent=request.intent)


def _opened(generation: int, resolved: ResolvedSpec) -> GenerationOpened:
    return GenerationOpened(
        generation=generation,
        timings=resolved.timings,
        has_volume=resolved.data_volume is not None,
        snapshots=resolved.snapshot,
    )


async def _lock_workspace(conn: Connection, workspace_id: str) -> LockedWorkspace:
    workspace = await generations.lock(conn, workspace_id)
    if workspace is None:
        raise application_errors.unknown_workspace(workspace_id)
    return workspace
