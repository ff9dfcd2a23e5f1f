"""What is read from the register API: the record, its audit trail, a box's own state, others' addresses.

Changes nothing. Who may read is `decision`'s, what a record shows is `store.reading`'s.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from register_api.access import Access, look_up
from register_api.answers import Code
from register_api.config import ApiConfig
from register_api.decision import Refused, Right
from register_api.documents import (
    AuditEntry,
    AuditTrail,
    Discovered,
    StateAnswer,
    WorkspaceRecord,
    WorkUnderWay,
)
from register_api.errors import ErrorDetail, error_response
from register_api.evidence import identify, read_credentials
from register_api.lanes import Lanes
from register_api.replies import answer, refusal
from register_api.verdict import Verdict
from store import audit, delegation_lists, reading
from store.pool import Connection
from store.registrations import read_seen
from workflows.delegations import DelegationState
from workflows.names import WORKSPACE_ID
from workflows.state import Intent, RegistrationSeen
from workflows.targets import Untargetable, target_url

CALLER_HEADER = "x-workspace-id"
PAGE = 100
LARGEST_ID = 2**63 - 1


class ReadRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, lanes: Lanes, access: Access) -> None:
        self._config = config
        self._lanes = lanes
        self._access = access

    async def record(self, request: Request) -> Response:
        """`GET /workspaces/{id}`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        async with self._lanes.connection(credentials) as conn:
            admitted = await self._access.check(conn, request, Right.READ, workspace_id, credentials)
            if isinstance(admitted, Refused):
                return refusal(request, admitted, workspace_id=workspace_id, credentials=credentials)
            record, seen = await _read(conn, workspace_id), None
            if record is not None and reading.is_unexplained(record):
                seen = await read_seen(
                    conn,
                    workspace_id,
                    generation=record.newest,
                    beat_fresh_for=self._config.heartbeat_stale,
                )
            work = await delegation_lists.under_way(conn, workspace_id) if record is not None else []
        if record is None:
            return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
        return answer(request, self._shown(record, seen, work))

    async def audit_trail(self, request: Request) -> Response:
        """`GET /workspaces/{id}/audit`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        before, limit = _number(request, "before", LARGEST_ID), _number(request, "limit", PAGE)
        if before == 0 or limit == 0:
            detail = ErrorDetail(
                workspace_id=workspace_id,
                error=f"before and limit must be whole numbers above 0, limit at most {PAGE}",
            )
            return error_response(request, Code.REQUEST_INVALID, detail)
        limit = limit or PAGE
        async with self._lanes.connection(credentials) as conn:
            admitted = await self._access.check(conn, request, Right.READ, workspace_id, credentials)
            if isinstance(admitted, Refused):
                return refusal(request, admitted, workspace_id=workspace_id, credentials=credentials)
            if admitted.found is None:
                return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
            rows = await audit.read(conn, workspace_id, before=before, limit=limit)
        entries = [_entry(row) for row in rows]
        next_before = entries[-1].id if len(entries) == limit else None
        return answer(request, AuditTrail(entries=entries, next_before=next_before))

    async def state(self, request: Request) -> Response:
        """`GET /workspaces/{id}/state`: for a box of whatever generation, which must learn that it is over.

        That it is over is a 200 with a word, not a 410: the question was answered.
        """
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        async with self._lanes.connection(credentials) as conn:
            found = await look_up(conn, workspace_id, credentials)
            caller = identify(credentials, found, self._config.bootstrap_policy)
            if caller.verdict in (Verdict.UNPROVEN, Verdict.UNDETERMINED) and not credentials.secrets:
                refused = Refused(code=Code.TOKEN_INVALID if credentials.came else Code.TOKEN_MISSING)
                return refusal(request, refused, workspace_id=workspace_id, credentials=credentials)
            record = await _read(conn, workspace_id)
        if record is None:
            return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
        phase = reading.shown_phase(record, stale_after=self._config.heartbeat_stale)
        superseded = caller.verdict is Verdict.SUPERSEDED and record.intent == Intent.RUN
        shown = StateAnswer(
            workspace_id=workspace_id,
            status="superseded" if superseded else phase,
            paused=record.intent == Intent.STOP,
            deleted=record.deleted or record.intent == Intent.DELETE,
        )
        return answer(request, shown)

    async def discover(self, request: Request) -> Response:
        """`GET /registry/discover/{id}`: for the holder of any workspace's live token.

        A box asks about another workspace here: no answer may tell the one that asks to shut down.
        """
        workspace_id = request.path_params["workspace_id"]
        asker = request.headers.get(CALLER_HEADER, "")
        credentials = read_credentials(request, self._config, workspace_id=asker)
        async with self._lanes.connection(credentials) as conn:
            admitted = await self._access.check(conn, request, Right.READ, asker, credentials)
            if isinstance(admitted, Refused):
                return refusal(request, admitted, workspace_id=asker, credentials=credentials)
            record = await _read(conn, workspace_id)
        detail = ErrorDetail(workspace_id=workspace_id)
        if record is None or record.deleted or record.intent == Intent.DELETE:
            return error_response(request, Code.WORKSPACE_UNKNOWN, detail)
        if record.current is None:
            return error_response(request, Code.TARGET_UNREACHABLE, detail)
        try:
            target = target_url(
                record.private_ip, record.url, allow_loopback=self._config.allow_loopback_targets
            )
        except Untargetable:
            return error_response(request, Code.TARGET_UNREACHABLE, detail)
        return answer(request, Discovered(id=workspace_id, url=target.url, name=record.name or workspace_id))

    def _shown(
        self,
        record: reading.Record,
        seen: RegistrationSeen | None,
        work: Sequence[delegation_lists.Work],
    ) -> WorkspaceRecord:
        stale_after = self._config.heartbeat_stale
        return WorkspaceRecord(
            workspace_id=record.workspace_id,
            phase=reading.shown_phase(record, stale_after=stale_after),
            generation=record.newest,
            instance_id=record.instance_id,
            private_ip=None if record.private_ip is None else str(record.private_ip),
            dns_name=record.dns_name,
            url=record.url,
            last_heartbeat_at=_utc(record.last_beat_at),
            last_processed_at=_utc(record.last_processed_at),
            recreates=record.recreates,
            last_error=record.last_error,
            conditions=reading.shown_conditions(record, stale_after=stale_after, seen=seen),
            work=[_work(each) for each in work],
        )


async def _read(conn: Connection, workspace_id: str) -> reading.Record | None:
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None
    return await reading.read_record(conn, workspace_id)


def _entry(row: audit.Row) -> AuditEntry:
    return AuditEntry(
        id=row.audit_id,
        at=row.at.astimezone(UTC),
        call=row.call,
        generation=row.generation,
        verdict=row.verdict,
        bearer=row.bearer,
        code=row.code,
        token_prefix=row.token_prefix,
        source=None if row.source is None else str(row.source),
        from_box=row.from_box,
        alert=row.alert,
        request_id=row.request_id,
        repeats=row.repeats,
    )


def _work(work: delegation_lists.Work) -> WorkUnderWay:
    return WorkUnderWay(
        state=DelegationState(work.state),
        count=work.count,
        held=work.held,
        stalled=work.stalled,
        oldest_at=work.oldest_at.astimezone(UTC),
    )


def _number(request: Request, name: str, most: int) -> int | None:
    """A query parameter above 0; None if it is not given, 0 if it is no such number."""
    text = request.query_params.get(name)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return number if number <= most else 0


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
