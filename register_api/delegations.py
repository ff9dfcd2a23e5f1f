"""Delegations: handing work to another workspace, and saying how far it is.

The API writes the ledger; the control plane's workers deliver. The rules are `decision`'s and
`workflows.delegations`'; a word that comes too late changes nothing.
"""

from datetime import UTC
from uuid import uuid4

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api import schemas
from register_api.access import Access, look_up
from register_api.answers import Code
from register_api.config import ApiConfig
from register_api.decision import MayUse, Refused, Right, decide_report, decide_use
from register_api.documents import (
    DelegationAccepted,
    DelegationList,
    DelegationRecorded,
    DelegationShown,
    DelegationUpdated,
)
from register_api.errors import ErrorDetail, error_response, request_id
from register_api.evidence import Caller, Credentials, identify, read_credentials
from register_api.lanes import Lanes
from register_api.replies import answer, refusal
from store import delegation_lists, delegations, processing, stirrings
from store.delegations import TASK_PREVIEW, Known, New
from store.pool import Connection, StoreUnavailable
from store.standing import still_current
from workflows.delegations import (
    STATUS_WORDS,
    TERMINAL,
    UPDATE_WORDS,
    DelegationState,
    DelegationType,
)

PAGE = 50
"""What runtimes in the field read."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class DelegationRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, lanes: Lanes, access: Access) -> None:
        self._config = config
        self._lanes = lanes
        self._access = access

    async def delegate(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegate`."""
        body = schemas.read(schemas.DelegateBody, await request.body())
        source_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=source_id)
        new = New(
            delegation_id=str(uuid4()),
            type=DelegationType.DELEGATE,
            source_id=source_id,
            target_id=body.target_id,
            task=body.task,
            idempotency_key=body.idempotency_key,
            idempotent=body.idempotent,
        )
        async with self._lanes.connection(credentials) as conn, conn.transaction():
            admitted = await self._access.check(conn, request, Right.DELEGATE, source_id, credentials)
            if isinstance(admitted, Refused):
                return refusal(request, admitted, workspace_id=source_id, credentials=credentials)
            if admitted.found is None or admitted.found.deleted:
                return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=source_id))
            if admitted.is_box:
                await _hold(conn, source_id, admitted.caller)
            outcome = await self._write_down(conn, request, new)
        if isinstance(outcome, Response):
            return outcome
        return answer(
            request,
            DelegationAccepted(delegation_id=outcome, target_id=body.target_id),
            status=202,
        )

    async def record(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegations/record`: the source's runtime sends it itself."""
        body = schemas.read(schemas.RecordBody, await request.body())
        source_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=source_id)
        new = New(
            delegation_id=body.delegation_id,
            type=DelegationType.RECORD,
            source_id=source_id,
            target_id=body.target_id,
            task=body.task,
        )
        async with self._lanes.connection(credentials) as conn, conn.transaction():
            caller, decision = await self._may_report(conn, source_id, credentials, terminal=False)
            if isinstance(decision, Refused):
                return refusal(request, decision, workspace_id=source_id, credentials=credentials)
            await _hold(conn, source_id, caller)
            outcome = await self._write_down(conn, request, new)
        if isinstance(outcome, Response):
            return outcome
        _log.info("delegation.recorded", workspace=source_id, delegation=outcome, verdict=caller.verdict)
        return answer(request, DelegationRecorded(delegation_id=outcome), status=202)

    async def update(self, request: Request) -> Response:
        """`POST /workspaces/{id}/delegations/{delegation_id}/update`: by its target, or by who records it."""
        body = schemas.read(schemas.UpdateBody, await request.body())
        workspace_id = request.path_params["workspace_id"]
        delegation_id = request.path_params["delegation_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        then = UPDATE_WORDS[body.status]
        async with self._lanes.connection(credentials) as conn:
            caller, decision = await self._may_report(
                conn, workspace_id, credentials, terminal=then in TERMINAL
            )
            if isinstance(decision, Refused):
                return refusal(request, decision, workspace_id=workspace_id, credentials=credentials)
            known = None if "\0" in delegation_id else await delegations.find(conn, delegation_id)
            if known is None or workspace_id not in (known.source_id, known.target_id):
                return error_response(
                    request, Code.DELEGATION_UNKNOWN, ErrorDetail(workspace_id=workspace_id)
                )
            by_target = known.target_id == workspace_id and known.type == DelegationType.DELEGATE
            by_source = known.source_id == workspace_id and known.type == DelegationType.RECORD
            if not (by_target or by_source):
                return error_response(
                    request, Code.DELEGATION_NOT_YOURS, ErrorDetail(workspace_id=workspace_id)
                )
            await self._take(conn, known, body, then, caller, by_target=by_target)
            now = await delegations.find(conn, delegation_id)
        if now is None:
            raise StoreUnavailable("the delegation is gone from the ledger")
        _log.info(
            "delegation.updated",
            workspace=workspace_id,
            delegation=delegation_id,
            said=body.status,
            state=now.state,
            request_id=request_id(request.scope),
        )
        return answer(
            request,
            DelegationUpdated(status=STATUS_WORDS[DelegationState(now.state)], delegation_id=delegation_id),
        )

    async def index(self, request: Request) -> Response:
        """`GET /workspaces/{id}/delegations`."""
        workspace_id = request.path_params["workspace_id"]
        credentials = read_credentials(request, self._config, workspace_id=workspace_id)
        async with self._lanes.connection(credentials) as conn:
            admitted = await self._access.check(conn, request, Right.READ, workspace_id, credentials)
            if isinstance(admitted, Refused):
                return refusal(request, admitted, workspace_id=workspace_id, credentials=credentials)
            if admitted.found is None:
                return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
            rows = await delegation_lists.of_source(
                conn,
                workspace_id,
                limit=PAGE,
                preview=TASK_PREVIEW,
                polled=admitted.by != "operator",
            )
        return answer(request, DelegationList(root=[_shown(row) for row in rows]))

    async def _write_down(self, conn: Connection, request: Request, new: New) -> str | Response:
        """The delegation's ID: of this one, or of the same one that stands there."""
        detail = ErrorDetail(workspace_id=new.target_id)
        if new.target_id == new.source_id:
            return error_response(request, Code.TARGET_IS_SOURCE, detail)
        target = await look_up(conn, new.target_id, Credentials(came=False))
        if target is None:
            return error_response(request, Code.TARGET_UNKNOWN, detail)
        if target.deleted or target.intent == "delete":
            return error_response(request, Code.TARGET_DELETED, detail)
        if await look_up(conn, new.delegation_id, Credentials(came=False)) is not None:
            # Its workflow's ID is the delegation's: a workspace's would take its place.
            return error_response(request, Code.DELEGATION_ID_TAKEN, detail)
        known = await delegations.create(conn, new)
        if known is None:
            return new.delegation_id
        if known.source_id != new.source_id or known.type != new.type:
            return error_response(request, Code.DELEGATION_ID_TAKEN, detail)
        if known.target_id != new.target_id or not known.same_task:
            return error_response(request, Code.IDEMPOTENCY_KEY_REUSED, detail)
        return known.delegation_id

    async def _may_report(
        self, conn: Connection, workspace_id: str, credentials: Credentials, *, terminal: bool
    ) -> tuple[Caller, MayUse | Refused]:
        found = await look_up(conn, workspace_id, credentials)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        use = decide_use(caller.standing, caller.verdict, bearer=caller.bearer)
        return caller, decide_report(
            caller.standing, use, peer=caller.peer, terminal=terminal, bearer=caller.bearer
        )

    async def _take(
        self,
        conn: Connection,
        known: Known,
        body: schemas.UpdateBody,
        then: DelegationState,
        caller: Caller,
        *,
        by_target: bool,
    ) -> None:
        error = (body.error or "the target said so") if then is DelegationState.FAILED else None
        async with conn.transaction():
            await _hold(conn, (known.target_id if by_target else known.source_id) or "", caller, alone=True)
            if not by_target:
                moved = await delegations.reported(
                    conn,
                    known.delegation_id,
                    then,
                    source_id=known.source_id or "",
                    error=error,
                    preview=body.response_preview,
                )
            else:
                moved = await self._hear(conn, known, body, then, caller, error=error)
            if moved:
                await stirrings.stir(conn, known.delegation_id)

    async def _hear(
        self,
        conn: Connection,
        known: Known,
        body: schemas.UpdateBody,
        then: DelegationState,
        caller: Caller,
        *,
        error: str | None,
    ) -> bool:
        """The target's word; whether its workflow has to look. That it goes on, it finds at its deadline."""
        if then is DelegationState.QUEUED:
            return False
        moved = await delegations.heard(
            conn,
            known.delegation_id,
            then,
            generation=caller.generation,
            attempt=None,
            error_code="target_failed" if then is DelegationState.FAILED else None,
            error=error,
            preview=body.response_preview,
        )
        if moved and then is DelegationState.PROCESSED:
            await processing.processed(conn, known.target_id, generation=caller.generation)
        return moved or await delegations.progressed(conn, known.delegation_id, generation=caller.generation)


async def _hold(conn: Connection, workspace_id: str, caller: Caller, *, alone: bool = False) -> None:
    """Whoever was judged as the current box is held as such until its word is written.

    Raises `StoreUnavailable` if it was replaced meanwhile: asking again, it is told.
    """
    if not await still_current(conn, workspace_id, caller.generation, alone=alone):
        raise StoreUnavailable("the box was replaced meanwhile")


def _shown(row: delegation_lists.Listed) -> DelegationShown:
    state = DelegationState(row.state)
    return DelegationShown(
        id=row.delegation_id,
        type=row.type,
        source_id=row.source_id,
        target_id=row.target_id,
        summary=row.summary,
        status=STATUS_WORDS[state],
        state=state,
        created_at=row.created_at.astimezone(UTC),
        delegation_id=row.delegation_id,
        error=row.error or (str(state) if STATUS_WORDS[state] == "failed" else None),
        response_preview=row.response_preview,
    )
