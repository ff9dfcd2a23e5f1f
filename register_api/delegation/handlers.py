"""Handlers that create, record, list and update delegations.

The API writes the delegation ledger; the control plane's workers deliver. `auth.rules` decides who may call,
`workflows.delegation.rules` has the states. A late report changes nothing.
"""

from datetime import UTC
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api.auth.access import Access, read_caller
from register_api.auth.credentials import Caller, Credentials, identify, read_credentials
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.refusals import refusal_response
from register_api.auth.rules import Allowed, Permission, Refused, decide_report, decide_use
from register_api.http.config import ApiConfig
from register_api.http.error_codes import ErrorCode
from register_api.http.errors import ErrorDetail, error_response, request_id
from register_api.http.responses import json_response
from register_api.schema import request_models
from register_api.schema.response_models import (
    DelegationAccepted,
    DelegationItem,
    DelegationList,
    DelegationRecorded,
    DelegationUpdated,
)
from store.db.pool import Connection, StoreUnavailable
from store.delegation import agent_liveness, delegation_queries, delegations
from store.delegation.delegations import TASK_PREVIEW_CHARS, DelegationRecord, NewDelegation
from store.outbox import delegation_wakeups
from store.registration.caller_lookup import still_current
from workflows.delegation.rules import (
    LEGACY_STATUSES,
    REPORTED_STATES,
    TERMINAL,
    DelegationState,
    DelegationType,
)

PAGE_SIZE = 50
"""The number that runtimes in the field expect."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DelegationRoutes:
    """Handlers of the delegation endpoints."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, access: Access) -> None:
        self._config = config
        self._pool = pool
        self._access = access

    async def delegate(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegate`."""
        body = request_models.parse_body(request_models.DelegateBody, await request.body())
        source_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=source_id)
        new = NewDelegation(
            delegation_id=str(uuid4()),
            type=DelegationType.DELEGATE,
            source_id=source_id,
            target_id=body.target_id,
            task=body.task,
            idempotency_key=body.idempotency_key,
            idempotent=body.idempotent,
        )
        async with self._pool.connection(credentials) as conn, conn.transaction():
            authorized = await self._access.check(conn, request, Permission.DELEGATE, source_id, credentials)
            if isinstance(authorized, Refused):
                return refusal_response(request, authorized, workspace_id=source_id, credentials=credentials)
            if authorized.found is None or authorized.found.deleted:
                return error_response(
                    request, ErrorCode.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=source_id)
                )
            if authorized.is_box:
                await _lock_current_box(conn, source_id, authorized.caller)
            outcome = await self._insert(conn, request, new)
        if isinstance(outcome, Response):
            return outcome
        return json_response(
            request,
            DelegationAccepted(delegation_id=outcome, target_id=body.target_id),
            status=202,
        )

    async def record(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegations/record`: the source's runtime delivers it itself."""
        body = request_models.parse_body(request_models.RecordBody, await request.body())
        source_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=source_id)
        new = NewDelegation(
            delegation_id=body.delegation_id,
            type=DelegationType.RECORD,
            source_id=source_id,
            target_id=body.target_id,
            task=body.task,
        )
        async with self._pool.connection(credentials) as conn, conn.transaction():
            caller, decision = await self._authorize_report(conn, source_id, credentials, terminal=False)
            if isinstance(decision, Refused):
                return refusal_response(request, decision, workspace_id=source_id, credentials=credentials)
            await _lock_current_box(conn, source_id, caller)
            outcome = await self._insert(conn, request, new)
        if isinstance(outcome, Response):
            return outcome
        _log.info("delegation.recorded", workspace=source_id, delegation=outcome, identity=caller.identity)
        return json_response(request, DelegationRecorded(delegation_id=outcome), status=202)

    async def update(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegations/{delegation_id}/update`: by its target or recording source."""
        body = request_models.parse_body(request_models.UpdateBody, await request.body())
        workspace_id = request.path_params["workspace_id"]
        delegation_id = request.path_params["delegation_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        reported = REPORTED_STATES[body.status]
        async with self._pool.connection(credentials) as conn:
            caller, decision = await self._authorize_report(
                conn, workspace_id, credentials, terminal=reported in TERMINAL
            )
            if isinstance(decision, Refused):
                return refusal_response(request, decision, workspace_id=workspace_id, credentials=credentials)
            known = None if "\0" in delegation_id else await delegations.find(conn, delegation_id)
            if known is None or workspace_id not in (known.source_id, known.target_id):
                return error_response(
                    request, ErrorCode.DELEGATION_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
                )
            by_target = known.target_id == workspace_id and known.type == DelegationType.DELEGATE
            by_source = known.source_id == workspace_id and known.type == DelegationType.RECORD
            if not (by_target or by_source):
                return error_response(
                    request, ErrorCode.DELEGATION_NOT_YOURS, ErrorDetail(workspace_id=workspace_id)
                )
            await self._apply_report(conn, known, body, reported, caller, by_target=by_target)
            updated = await delegations.find(conn, delegation_id)
        if updated is None:
            raise StoreUnavailable("the delegation was deleted during the update")
        _log.info(
            "delegation.updated",
            workspace=workspace_id,
            delegation=delegation_id,
            reported=body.status,
            state=updated.state,
            request_id=request_id(request.scope),
        )
        return json_response(
            request,
            DelegationUpdated(
                status=LEGACY_STATUSES[DelegationState(updated.state)], delegation_id=delegation_id
            ),
        )

    async def index(self, request: Request) -> Response:
        """`GET /workspaces/{id}/delegations`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
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
            rows = await delegation_queries.list_for_source(
                conn,
                workspace_id,
                limit=PAGE_SIZE,
                preview=TASK_PREVIEW_CHARS,
                polled=authorized.is_box,
            )
        return json_response(request, DelegationList(root=[_delegation_item(row) for row in rows]))

    async def _insert(self, conn: Connection, request: Request, new: NewDelegation) -> str | Response:
        """The ID of the new delegation or of an equal existing one; an error response for a conflict."""
        detail = ErrorDetail(workspace_id=new.target_id)
        if new.target_id == new.source_id:
            return error_response(request, ErrorCode.TARGET_IS_SOURCE, detail)
        target = await read_caller(conn, new.target_id, Credentials(present=False))
        if target is None:
            return error_response(request, ErrorCode.TARGET_UNKNOWN, detail)
        if target.deleted or target.intent == "delete":
            return error_response(request, ErrorCode.TARGET_DELETED, detail)
        known = await delegations.create(conn, new)
        if known is None:
            return new.delegation_id
        if known.source_id != new.source_id or known.type != new.type:
            return error_response(request, ErrorCode.DELEGATION_ID_TAKEN, detail)
        if known.target_id != new.target_id or not known.same_task:
            return error_response(request, ErrorCode.IDEMPOTENCY_KEY_REUSED, detail)
        return known.delegation_id

    async def _authorize_report(
        self, conn: Connection, workspace_id: str, credentials: Credentials, *, terminal: bool
    ) -> tuple[Caller, Allowed | Refused]:
        found = await read_caller(conn, workspace_id, credentials)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        use = decide_use(caller.workspace, caller.identity, bearer=caller.bearer)
        return caller, decide_report(caller.workspace, use, peer=caller.peer, terminal=terminal)

    async def _apply_report(
        self,
        conn: Connection,
        known: DelegationRecord,
        body: request_models.UpdateBody,
        reported: DelegationState,
        caller: Caller,
        *,
        by_target: bool,
    ) -> None:
        error = (
            (body.error or "the target reported a failure") if reported is DelegationState.FAILED else None
        )
        async with conn.transaction():
            await _lock_current_box(
                conn, (known.target_id if by_target else known.source_id) or "", caller, exclusive=True
            )
            if not by_target:
                moved = await delegations.record_source_report(
                    conn,
                    known.delegation_id,
                    reported,
                    source_id=known.source_id or "",
                    error=error,
                    preview=body.response_preview,
                )
            else:
                moved = await self._apply_target_report(conn, known, body, reported, caller, error=error)
            if moved:
                await delegation_wakeups.enqueue(conn, known.delegation_id)

    async def _apply_target_report(
        self,
        conn: Connection,
        known: DelegationRecord,
        body: request_models.UpdateBody,
        reported: DelegationState,
        caller: Caller,
        *,
        error: str | None,
    ) -> bool:
        """Write the target's report; whether the delegation's workflow must wake up.

        It must for a new state and for a stalled delegation. Other progress is read at its next deadline.
        """
        if reported is DelegationState.QUEUED:
            return False
        moved = await delegations.record_progress(
            conn,
            known.delegation_id,
            reported,
            generation=caller.generation,
            attempt=None,
            error_code="target_failed" if reported is DelegationState.FAILED else None,
            error=error,
            preview=body.response_preview,
        )
        if moved and reported is DelegationState.PROCESSED:
            await agent_liveness.record_processed(conn, known.target_id, generation=caller.generation)
        return moved or await delegations.refresh_progress(
            conn, known.delegation_id, generation=caller.generation
        )


async def _lock_current_box(
    conn: Connection, workspace_id: str, caller: Caller, *, exclusive: bool = False
) -> None:
    """Keep the caller the current box until the transaction ends.

    Raises `StoreUnavailable` if it was replaced since the decision; its retry is then refused as superseded.
    """
    if not await still_current(conn, workspace_id, caller.generation, exclusive=exclusive):
        raise StoreUnavailable("the box was replaced during the call")


def _delegation_item(row: delegation_queries.ListedDelegation) -> DelegationItem:
    state = DelegationState(row.state)
    return DelegationItem(
        id=row.delegation_id,
        type=row.type,
        source_id=row.source_id,
        target_id=row.target_id,
        summary=row.summary,
        status=LEGACY_STATUSES[state],
        state=state,
        created_at=row.created_at.astimezone(UTC),
        delegation_id=row.delegation_id,
        error=row.error or (str(state) if LEGACY_STATUSES[state] == "failed" else None),
        response_preview=row.response_preview,
    )
