"""Handlers for register, heartbeat and update-card. `auth.rules` has the decision tables."""

import time

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api.auth import audit
from register_api.auth.audit import Auditor
from register_api.auth.credentials import Caller, Credentials, identify, read_credentials
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.refusals import refusal_response
from register_api.auth.rules import Accepted, Allowed, Bearer, Grant, Refused, decide_heartbeat, decide_use
from register_api.http.config import ApiConfig
from register_api.http.error_codes import ERROR_SPECS
from register_api.http.errors import request_id
from register_api.http.responses import json_response
from register_api.observability import metrics, request_context, tracing
from register_api.registration.heartbeat_batching import HeartbeatBatcher
from register_api.registration.register import RegisterResult, Registrar
from register_api.schema import request_models
from register_api.schema.response_models import CardUpdated, HeartbeatResponse, RegisterResponse
from store.db.pool import Connection, StoreUnavailable
from store.registration import heartbeats, register_writes, superseded_calls
from store.registration.caller_lookup import CallerRecord, find_caller

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

HEARTBEAT_ATTEMPTS = 3
"""A token can change its state between decision and update; then the heartbeat is decided again."""

UNAUTHENTICATED_LIMIT = 3
"""Full heartbeats in a row without a live token. A race or a single call of a tool never reaches three."""


class BoxRoutes:
    """Handlers of the endpoints that boxes call."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, auditor: Auditor) -> None:
        self._config = config
        self._pool = pool
        self._auditor = auditor
        self._registrar = Registrar(config, pool, auditor)
        self._batcher = HeartbeatBatcher(pool)

    async def register(self, request: Request) -> Response:
        """`POST /registry/register`."""
        started = time.monotonic()
        body = request_models.parse_body(request_models.RegisterBody, await request.body())
        request_context.log_context(body.id)
        credentials = read_credentials(request, self._config, workspace_id=body.id)
        result = await self._registrar.register(body, credentials, request_id=request_id(request.scope))
        _log_register(request, body.id, result, credentials)
        _observe_register(request, body.id, result, seconds=time.monotonic() - started)
        if isinstance(result.decision, Refused):
            return refusal_response(request, result.decision, workspace_id=body.id, credentials=credentials)
        return json_response(request, RegisterResponse(auth_token=result.token))

    async def heartbeat(self, request: Request) -> Response:
        """`POST /registry/heartbeat`: in a batch if possible, else in a transaction of its own."""
        started = time.monotonic()
        body = request_models.parse_body(request_models.HeartbeatBody, await request.body())
        request_context.log_context(body.workspace_id)
        credentials = read_credentials(request, self._config, workspace_id=body.workspace_id)
        found = await self._batcher.record(body, credentials)
        if found is not None:
            caller, decision = self._evaluate_heartbeat(body, credentials, found)
            if isinstance(decision, Allowed):
                self._pool.mark_known(credentials.sha256)
                return json_response(request, HeartbeatResponse(lifecycle_generation=caller.generation))
        async with self._pool.connection(credentials) as conn:
            for _ in range(HEARTBEAT_ATTEMPTS):
                result = await heartbeats.record(
                    conn,
                    body.workspace_id,
                    sha256=credentials.sha256,
                    secret_generation=credentials.secret_generation,
                    heartbeat=body.heartbeat(),
                )
                found = None if result is None else result.caller
                caller, decision = self._evaluate_heartbeat(body, credentials, found)
                if isinstance(decision, Refused):
                    await self._refuse(
                        conn, request, body.workspace_id, decision, caller, credentials, found=found
                    )
                    return refusal_response(
                        request, decision, workspace_id=body.workspace_id, credentials=credentials
                    )
                if result is not None and result.counted:
                    self._pool.mark_known(credentials.sha256)
                    generation = caller.generation
                    if result.first:
                        _log.info("heartbeat.first", workspace=body.workspace_id, generation=generation)
                        _observe_first_heartbeat(
                            request, body.workspace_id, generation, seconds=time.monotonic() - started
                        )
                    return json_response(request, HeartbeatResponse(lifecycle_generation=generation))
        raise StoreUnavailable(f"the token changed during {HEARTBEAT_ATTEMPTS} attempts")

    def _evaluate_heartbeat(
        self, body: request_models.HeartbeatBody, credentials: Credentials, found: CallerRecord | None
    ) -> tuple[Caller, Allowed | Refused]:
        caller = identify(credentials, found, self._config.bootstrap_policy)
        return caller, decide_heartbeat(
            caller.workspace, caller.identity, bearer=caller.bearer, peer=caller.peer, full=body.is_full
        )

    async def update_card(self, request: Request) -> Response:
        """`POST /registry/update-card`. Counts as a use of the token, so it confirms a pending one."""
        body = request_models.parse_body(request_models.CardBody, await request.body())
        request_context.log_context(body.workspace_id)
        credentials = read_credentials(request, self._config, workspace_id=body.workspace_id)
        async with self._pool.connection(credentials) as conn:
            # First without the lock: an unproven caller must not make a box wait for it.
            found, caller, decision = await self._authorize(conn, body.workspace_id, credentials)
            if isinstance(decision, Allowed):
                async with conn.transaction():
                    await register_writes.lock_current(conn, body.workspace_id)
                    found, caller, decision = await self._authorize(conn, body.workspace_id, credentials)
                    if isinstance(decision, Allowed) and found is not None and found.token_id is not None:
                        generation = caller.generation
                        if caller.bearer is Bearer.PENDING:
                            await register_writes.revoke_others(
                                conn, body.workspace_id, generation=generation, keep=found.token_id
                            )
                        await register_writes.use_token(conn, found.token_id)
                        await register_writes.record_card(
                            conn, body.workspace_id, generation=generation, agent_card=body.agent_card
                        )
            if isinstance(decision, Refused):
                await self._refuse(
                    conn, request, body.workspace_id, decision, caller, credentials, found=found
                )
                return refusal_response(
                    request, decision, workspace_id=body.workspace_id, credentials=credentials
                )
        self._pool.mark_known(credentials.sha256)
        return json_response(request, CardUpdated())

    async def _authorize(
        self, conn: Connection, workspace_id: str, credentials: Credentials
    ) -> tuple[CallerRecord | None, Caller, Allowed | Refused]:
        found = await find_caller(conn, workspace_id, sha256=credentials.sha256)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        return found, caller, decide_use(caller.workspace, caller.identity, bearer=caller.bearer)

    async def _refuse(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        refused: Refused,
        caller: Caller,
        credentials: Credentials,
        *,
        found: CallerRecord | None,
    ) -> None:
        """Apply the effects of a refused call; write it to audit log and log."""
        call = request.url.path.rpartition("/")[2]
        prefix = None if found is None else found.token_prefix
        unauthenticated = 0
        if refused.count_unauthenticated:
            unauthenticated = await heartbeats.count_unauthenticated(
                conn, workspace_id, generation=caller.generation, threshold=UNAUTHENTICATED_LIMIT
            )
        if refused.evict and caller.superseded_generation is not None:
            await superseded_calls.enqueue_superseded_call(
                conn, workspace_id, generation=caller.superseded_generation
            )
        if found is not None:
            entry = audit.audit_entry(
                workspace_id,
                call=call,
                code=refused.code,
                caller=caller,
                credentials=credentials,
                token_prefix=prefix,
                request_id=request_id(request.scope),
                alert=unauthenticated == UNAUTHENTICATED_LIMIT,
            )
            await self._auditor.write_refusal(conn, entry)
        _log.warning(
            f"{call}.refused",
            workspace=workspace_id,
            generation=caller.generation or None,
            code=refused.code,
            identity=caller.identity,
            bearer=caller.bearer,
            unauthenticated=unauthenticated,
            token_prefix=prefix,
            source=_text(credentials.source),
            request_id=request_id(request.scope),
        )


def _log_register(
    request: Request, workspace_id: str, result: RegisterResult, credentials: Credentials
) -> None:
    caller, decision = result.caller, result.decision
    refused = decision if isinstance(decision, Refused) else None
    write = _log.warning if refused is not None and refused.alert else _log.info
    write(
        "register.answered",
        workspace=workspace_id,
        generation=caller.generation or None,
        status=200 if refused is None else ERROR_SPECS[refused.code].status,
        code=None if refused is None else refused.code,
        grant=decision.grant if isinstance(decision, Accepted) else None,
        first=result.first,
        identity=caller.identity,
        bearer=caller.bearer,
        token_prefix=result.bearer_prefix,
        source=_text(credentials.source),
        request_id=request_id(request.scope),
    )


def _observe_register(request: Request, workspace_id: str, result: RegisterResult, *, seconds: float) -> None:
    caller, decision = result.caller, result.decision
    metrics.REGISTER_CALLS.labels(result.code, caller.identity).inc()
    if isinstance(decision, Refused):
        if decision.alert:
            metrics.REGISTER_ALERTS.labels(result.code).inc()
        return
    # Later calls of a box that has its token do not belong to the trace of its launch.
    if result.first or decision.grant is not Grant.NONE:
        tracing.emit_span(
            "register",
            workspace_id,
            caller.generation,
            seconds=seconds,
            attributes={
                "onebox.code": result.code,
                "onebox.identity": caller.identity,
                "onebox.request_id": request_id(request.scope),
            },
        )


def _observe_first_heartbeat(request: Request, workspace_id: str, generation: int, *, seconds: float) -> None:
    metrics.FIRST_HEARTBEATS.inc()
    attributes = {"onebox.request_id": request_id(request.scope)}
    tracing.emit_span("first heartbeat", workspace_id, generation, seconds=seconds, attributes=attributes)


def _text(source: object) -> str | None:
    return None if source is None else str(source)
