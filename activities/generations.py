"""Enrolling a workspace, opening its generations, closing it. PostgreSQL only.

What is asked for and when is the lifecycle's decision; the numbers come from the database.
"""

from dataclasses import replace
from datetime import timedelta

import structlog
from temporalio import activity

from activities import failures, metrics, rows, specs
from activities.execution import execution
from activities.ports import CloseWorkspace, Enroll, Enrolled, GenerationOpened, OpenGeneration
from activities.specs import BoxDefaults, ResolvedSpec
from store import generations, records, volumes
from store.credentials import ServerKeys
from store.generations import Workspace
from store.pool import Connection, Pool, connection
from workflows.admission import REMEMBERED
from workflows.messages import DataVolume
from workflows.names import InvalidWorkspaceId, check_workspace_id
from workflows.requests import is_human
from workflows.state import Intent, Phase, SnapshotPolicy

RECREATES_WITHIN = timedelta(hours=24)
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
        """Insert the record if there is none; never overwrite a stored spec with an empty one."""
        workspace_id = request.workspace_id
        async with execution(workspace_id):
            try:
                check_workspace_id(workspace_id)
            except InvalidWorkspaceId as error:
                raise failures.give_up(
                    "invalid_workspace_id",
                    str(error),
                    hint="Start the workflow under a DNS label: its ID becomes a host name and a tag.",
                ) from None
            async with connection(self._pool) as conn, conn.transaction():
                await generations.enroll(conn, workspace_id, spec=specs.overrides(request.spec))
                record = await generations.read(conn, workspace_id, beat_fresh_for=self._heartbeat_stale)
                recreates = await records.accepted_recreates(conn, workspace_id, within=RECREATES_WITHIN)
                decided = await records.newest_requests(conn, workspace_id, most=REMEMBERED)
                volume = await volumes.read(conn, workspace_id)
            await log.ainfo("workspace.enrolled", current=record.current, at_generation=record.generation)
            opened = specs.load(record.opened_spec) if record.current and record.opened_spec else None
            return Enrolled(
                intent=Intent(record.intent),
                deleted=record.deleted,
                generation=record.generation,
                current=record.current,
                revision=record.revision,
                timings=specs.resolve(self._defaults, record.spec).timings,
                attempt=record.attempt,
                registered_at=record.registered_at,
                beating_at=record.beating_at,
                automatic=tuple(one.at for one in recreates if not is_human(one.requested_by)),
                accepted=tuple(one.at for one in recreates),
                credential_lost_at=record.credential_lost_at,
                not_processing_since=record.not_processing_since,
                not_processing_why=record.not_processing_why or "",
                has_volume=volume is not None or (opened is not None and opened.data_volume is not None),
                snapshots=opened.snapshot if opened is not None else SnapshotPolicy.OFF,
                decided=tuple(map(rows.request_of, decided)),
                heeds_resets=True,
            )

    @activity.defn(name="open_generation")
    async def open_generation(self, request: OpenGeneration) -> GenerationOpened:
        """In one transaction: supersede the old generation, revoke its tokens, insert the new one."""
        async with execution(request.workspace_id):
            async with connection(self._pool) as conn, conn.transaction():
                result, is_new = await self._open(conn, request)
            if is_new:
                metrics.GENERATIONS_OPENED.inc()
            return result

    async def _open(self, conn: Connection, request: OpenGeneration) -> tuple[GenerationOpened, bool]:
        """What is open then, and whether it was opened here."""
        workspace = await _locked(conn, request.workspace_id)
        if workspace.deleted or workspace.intent == Intent.DELETE:
            raise failures.give_up(
                "workspace_deleted",
                f"workspace {request.workspace_id} is deleted",
                hint="A deleted workspace stays deleted: create another one under an ID of its own.",
            )
        resolved = specs.resolve(self._defaults, workspace.spec)
        if workspace.generation > request.after:
            if not workspace.current:
                raise failures.superseded(request.after + 1)  # closed meanwhile: a stop was accepted
            await log.ainfo("generation.found_open", generation=workspace.generation)
            found = await generations.current(conn, request.workspace_id, workspace.generation)
            standing = specs.load(found.spec) if found is not None else resolved
            return _opened(workspace.generation, replace(standing, timings=resolved.timings)), False
        volume = await volumes.read(conn, request.workspace_id)
        if volume is not None and resolved.data_volume is None:
            # A spec that no longer names it must not leave a box without its data.
            resolved = replace(resolved, data_volume=DataVolume())
        generation = max(workspace.generation, request.after) + 1
        await generations.open_generation(
            conn,
            request.workspace_id,
            generation=generation,
            key_id=self._keys.current,
            spec=specs.dump(resolved),
            phase=Phase.PROVISIONING if workspace.generation == 0 else Phase.RECREATING,
        )
        await log.ainfo("generation.opened", generation=generation)
        return _opened(generation, resolved), True

    @activity.defn(name="close_workspace")
    async def close_workspace(self, request: CloseWorkspace) -> None:
        """In one transaction: store the intent, supersede the generation, revoke its tokens."""
        async with (
            execution(request.workspace_id, request.generation),
            connection(self._pool) as conn,
            conn.transaction(),
        ):
            workspace = await _locked(conn, request.workspace_id)
            if workspace.generation > request.generation:
                raise failures.superseded(request.generation)
            if workspace.intent == Intent.DELETE:
                return  # nothing takes a deletion back, a late stop neither
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


async def _locked(conn: Connection, workspace_id: str) -> Workspace:
    workspace = await generations.lock(conn, workspace_id)
    if workspace is None:
        raise failures.unknown_workspace(workspace_id)
    return workspace
