"""Writes the status and the outcomes of requests to the workspace's record."""

import structlog
from temporalio import activity

from activities.shared import application_errors
from activities.shared.activity_context import activity_context
from activities.telemetry import metrics, tracing
from activities.workspace import status_rows
from store.db.pool import Pool, connection
from store.workspace import status
from store.workspace.status import CameOnline
from workflows.workspace.contract import RecordStatus, StatusRecorded
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind, RequestKind, is_human

_GENERATION_REQUESTS = (RequestKind.RECREATE, RequestKind.START)
_TRACED_OUTCOMES = (OutcomeKind.ACCEPTED, OutcomeKind.JOINED)
"""Outcomes that get a span in the trace of their generation."""

log = structlog.get_logger()


class Records:
    """Needs PostgreSQL."""

    def __init__(self, *, pool: Pool) -> None:
        self._pool = pool

    @activity.defn(name="record_status")
    async def record_status(self, request: RecordStatus) -> StatusRecorded:
        """Write the status unless a newer revision is stored. Insert the outcome of each request ID once."""
        workspace_id = request.workspace_id
        async with activity_context(workspace_id, request.generation):
            async with connection(self._pool) as conn, conn.transaction():
                await status.write_status(conn, workspace_id, status_rows.status_row(request))
                stored = await status.read_version(conn, workspace_id)
                if stored is None:
                    raise application_errors.unknown_workspace(workspace_id)
                added = await status.add_requests(
                    conn, workspace_id, map(status_rows.request_row, request.requests)
                )
                online = None
                if request.phase is Phase.ONLINE:
                    online = await status.mark_online(conn, workspace_id, generation=request.generation)
            await _publish_outcomes(request, added)
            if online is not None:
                _publish_online(request, online)
            # Raised after the commit: requesters get these outcomes, so they must be stored.
            if stored.generation > request.generation:
                raise application_errors.superseded(
                    request.generation, by=f"generation {stored.generation} is open"
                )
            await log.ainfo("status.recorded", phase=request.phase, revision=stored.revision)
            return StatusRecorded(revision=stored.revision)


async def _publish_outcomes(request: RecordStatus, added: frozenset[str]) -> None:
    """Log, count and trace the newly inserted outcomes. A retry inserts none."""
    for each in request.requests:
        if status_rows.storable(each.request_id) not in added:
            continue
        source = metrics.HUMAN if is_human(each.requested_by) else metrics.AUTOMATIC
        metrics.REQUESTS.labels(each.kind, each.outcome, source).inc()
        await log.ainfo(
            "request.recorded",
            request_id=each.request_id,
            kind=each.kind,
            requested_by=each.requested_by,
            outcome=each.outcome,
            generation=each.generation,
        )
        if each.kind in _GENERATION_REQUESTS and each.outcome in _TRACED_OUTCOMES:
            tracing.emit_span(
                f"request {each.outcome}",
                of=(request.workspace_id, each.generation),
                start=each.at,
                attributes={
                    "onebox.workspace": request.workspace_id,
                    "onebox.generation": each.generation,
                    "onebox.request_id": each.request_id,
                    "onebox.request_kind": each.kind,
                    "onebox.request_source": source,
                },
            )


def _publish_online(request: RecordStatus, online: CameOnline) -> None:
    metrics.TIME_TO_ONLINE.observe((online.online_at - online.requested_at).total_seconds())
    tracing.emit_provisioning_span(
        of=(request.workspace_id, request.generation), start=online.requested_at, end=online.online_at
    )
