"""Read-only handlers: the workspace record, its audit log, a box's state, another workspace's address.

`auth.rules` decides who may read; `store.workspace.record_view` computes phase and conditions.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from register_api.auth.access import Access, read_caller
from register_api.auth.credentials import identify, read_credentials
from register_api.auth.identity import CallerIdentity
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.refusals import refusal_response
from register_api.auth.rules import Permission, Refused
from register_api.http.config import ApiConfig
from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response
from register_api.http.responses import json_response
from register_api.schema.response_models import (
    AuditEntry,
    AuditTrail,
    DiscoverResponse,
    OpenDelegations,
    StateResponse,
    WorkspaceRecord,
)
from store.db.pool import Connection
from store.delegation import delegation_queries
from store.registration import audit
from store.registration.register_reads import read_registration
from store.workspace import record_view
from workflows.delegation.rules import DelegationState
from workflows.shared.target_url import InvalidTarget, target_url
from workflows.shared.workspace_ids import WORKSPACE_ID
from workflows.workspace.diagnosis import RegistrationStatus
from workflows.workspace.enums import Intent

CALLER_HEADER = "x-workspace-id"
PAGE_SIZE = 100
LARGEST_ID = 2**63 - 1


class ReadRoutes:
    """Handlers of the read-only endpoints."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, access: Access) -> None:
        self._config = config
        self._pool = pool
        self._access = access

    async def record(self, request: Request) -> Response:
        """`GET /workspaces/{id}`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        async with self._pool.connection(credentials) as conn:
            authorized = await self._access.check(conn, request, Permission.READ, workspace_id, credentials)
            if isinstance(authorized, Refused):
                return refusal_response(
                    request, authorized, workspace_id=workspace_id, credentials=credentials
                )
            record, registration = await _read_record(conn, workspace_id), None
            if record is not None and record_view.needs_diagnosis(record):
                registration = await read_registration(
                    conn,
                    workspace_id,
                    generation=record.newest,
                    heartbeat_fresh_for=self._config.heartbeat_stale,
                )
            work = await delegation_queries.inbound_work(conn, workspace_id) if record is not None else []
        if record is None:
            return error_response(
                request, ErrorCode.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
            )
        return json_response(request, self._workspace_record(record, registration, work))

    async def audit_trail(self, request: Request) -> Response:
        """`GET /workspaces/{id}/audit`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        before, limit = (
            _positive_int(request, "before", LARGEST_ID),
            _positive_int(request, "limit", PAGE_SIZE),
        )
        if before == 0 or limit == 0:
            detail = ErrorDetail(
                workspace_id=workspace_id,
                error=f"before and limit must be positive integers, limit at most {PAGE_SIZE}",
            )
            return error_response(request, ErrorCode.REQUEST_INVALID, detail)
        limit = limit or PAGE_SIZE
        async with self._pool.connection(credentials) as conn:
            authorized = await self._access.check(conn, request, Permission.READ, workspace_id, credentials)
            if isinstance(authorized, Refused):
                return refusal_response(
                    request, authorized, workspace_id=workspace_id, credentials=credentials
                )
            if authorized.found is None:
                return error_response(
                    request, ErrorCode.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
                )
            rows = await audit.read(conn, workspace_id, before=before, limit=limit)
        entries = [_audit_entry(row) for row in rows]
        next_before = entries[-1].id if len(entries) == limit else None
        return json_response(request, AuditTrail(entries=entries, next_before=next_before))

    async def state(self, request: Request) -> Response:
        """`GET /workspaces/{id}/state`: for a box of any generation, to learn whether it is superseded.

        A superseded box gets a 200 with that status, not a 410, because the request itself succeeded.
        """
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        async with self._pool.connection(credentials) as conn:
            found = await read_caller(conn, workspace_id, credentials)
            caller = identify(credentials, found, self._config.bootstrap_policy)
            if (
                caller.identity in (CallerIdentity.UNPROVEN, CallerIdentity.UNDETERMINED)
                and not credentials.secrets
            ):
                refused = Refused(
                    code=ErrorCode.TOKEN_INVALID if credentials.present else ErrorCode.TOKEN_MISSING
                )
                return refusal_response(request, refused, workspace_id=workspace_id, credentials=credentials)
            record = await _read_record(conn, workspace_id)
        if record is None:
            return error_response(
                request, ErrorCode.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
            )
        phase = record_view.effective_phase(record, stale_after=self._config.heartbeat_stale)
        superseded = caller.identity is CallerIdentity.SUPERSEDED and record.intent == Intent.RUN
        state = StateResponse(
            workspace_id=workspace_id,
            status="superseded" if superseded else phase,
            paused=record.intent == Intent.STOP,
            deleted=record.deleted or record.intent == Intent.DELETE,
        )
        return json_response(request, state)

    async def discover(self, request: Request) -> Response:
        """`GET /registry/discover/{id}`: for the holder of any workspace's live token.

        The call is about another workspace, so that workspace's end is a 404 or 503: a 410 would shut down
        the caller.
        """
        workspace_id = request.path_params["workspace_id"]
        caller_id = request.headers.get(CALLER_HEADER, "")
        credentials = read_credentials(request, self._config, workspace_id=caller_id)
        async with self._pool.connection(credentials) as conn:
            authorized = await self._access.check(conn, request, Permission.READ, caller_id, credentials)
            if isinstance(authorized, Refused):
                return refusal_response(request, authorized, workspace_id=caller_id, credentials=credentials)
            record = await _read_record(conn, workspace_id)
        detail = ErrorDetail(workspace_id=workspace_id)
        if record is None or record.deleted or record.intent == Intent.DELETE:
            return error_response(request, ErrorCode.WORKSPACE_UNKNOWN, detail)
        if record.current is None:
            return error_response(request, ErrorCode.TARGET_UNREACHABLE, detail)
        try:
            target = target_url(
                record.private_ip, record.url, allow_loopback=self._config.allow_loopback_targets
            )
        except InvalidTarget:
            return error_response(request, ErrorCode.TARGET_UNREACHABLE, detail)
        return json_response(
            request, DiscoverResponse(id=workspace_id, url=target.url, name=record.name or workspace_id)
        )

    def _workspace_record(
        self,
        record: record_view.RecordView,
        registration: RegistrationStatus | None,
        work: Sequence[delegation_queries.InboundWork],
    ) -> WorkspaceRecord:
        stale_after = self._config.heartbeat_stale
        return WorkspaceRecord(
            workspace_id=record.workspace_id,
            phase=record_view.effective_phase(record, stale_after=stale_after),
            generation=record.newest,
            instance_id=record.instance_id,
            private_ip=None if record.private_ip is None else str(record.private_ip),
            dns_name=record.dns_name,
            url=record.url,
            last_heartbeat_at=_utc(record.last_heartbeat_at),
            last_processed_at=_utc(record.last_processed_at),
            recreates=record.recreates,
            last_error=record.last_error,
            conditions=record_view.effective_conditions(
                record, stale_after=stale_after, registration=registration
            ),
            work=[_open_delegations(row) for row in work],
        )


async def _read_record(conn: Connection, workspace_id: str) -> record_view.RecordView | None:
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None
    return await record_view.read_record(conn, workspace_id)


def _audit_entry(row: audit.AuditRow) -> AuditEntry:
    return AuditEntry(
        id=row.audit_id,
        at=row.at.astimezone(UTC),
        call=row.operation,
        generation=row.generation,
        verdict=row.identity,
        bearer=row.credential_kind,
        code=row.code,
        token_prefix=row.token_prefix,
        source=None if row.source is None else str(row.source),
        from_box=row.from_box,
        alert=row.needs_attention,
        request_id=row.request_id,
        repeats=row.repeats,
    )


def _open_delegations(work: delegation_queries.InboundWork) -> OpenDelegations:
    return OpenDelegations(
        state=DelegationState(work.state),
        count=work.count,
        held=work.dead_lettered,
        stalled=work.stalled,
        oldest_at=work.oldest_at.astimezone(UTC),
    )


def _positive_int(request: Request, name: str, maximum: int) -> int | None:
    """A query parameter as a positive integer; None if it is missing, 0 if it is invalid."""
    text = request.query_params.get(name)
    if text is None:
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
    return number if number <= maximum else 0


def _utc(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
