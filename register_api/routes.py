"""What boxes call: registering, beating and renewing their card, from a request to its answer and its trail.

Holds no rules: those are in `decision`.
"""

import time

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api import auditing, metrics, observing, schemas, tracing
from register_api.answers import ANSWERS
from register_api.auditing import Auditor
from register_api.beating import BeatsTogether
from register_api.config import ApiConfig
from register_api.decision import Accepted, Bearer, Grant, MayUse, Refused, decide_heartbeat, decide_use
from register_api.documents import CardUpdated, HeartbeatAnswer, RegisteredAnswer
from register_api.errors import request_id
from register_api.evidence import Caller, Credentials, identify, read_credentials
from register_api.lanes import Lanes
from register_api.registering import Registered, Registrar
from register_api.replies import answer, refusal
from store import beats, intrusions, registering
from store.pool import Connection, StoreUnavailable
from store.standing import Found, find

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

BEAT_ATTEMPTS = 3
"""A token can change hands between being found and being used; then the beat is judged anew."""

STRIKES = 3
"""So many full beats in a row without a live token: a helper's stray call or a race is one, not three."""


class BoxRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, lanes: Lanes, auditor: Auditor) -> None:
        self._config = config
        self._lanes = lanes
        self._auditor = auditor
        self._registrar = Registrar(config, lanes, auditor)
        self._together = BeatsTogether(lanes)

    async def register(self, request: Request) -> Response:
        """`POST /registry/register`."""
        started = time.monotonic()
        body = schemas.read(schemas.RegisterBody, await request.body())
        observing.about(body.id)
        credentials = read_credentials(request, self._config, workspace_id=body.id)
        result = await self._registrar.register(body, credentials, request_id=request_id(request.scope))
        _log_register(request, body.id, result, credentials)
        _observe_register(request, body.id, result, seconds=time.monotonic() - started)
        if isinstance(result.decision, Refused):
            return refusal(request, result.decision, workspace_id=body.id, credentials=credentials)
        return answer(request, RegisteredAnswer(auth_token=result.token))

    async def heartbeat(self, request: Request) -> Response:
        """`POST /registry/heartbeat`: together with others where nothing is to be done but to note it."""
        started = time.monotonic()
        body = schemas.read(schemas.HeartbeatBody, await request.body())
        observing.about(body.workspace_id)
        credentials = read_credentials(request, self._config, workspace_id=body.workspace_id)
        found = await self._together.take_in(body, credentials)
        if found is not None:
            caller, decision = self._judge_beat(body, credentials, found)
            if isinstance(decision, MayUse):
                self._lanes.remember(credentials.sha256)
                return answer(request, HeartbeatAnswer(lifecycle_generation=caller.generation))
        async with self._lanes.connection(credentials) as conn:
            for _ in range(BEAT_ATTEMPTS):
                taken = await beats.take_in(
                    conn,
                    body.workspace_id,
                    sha256=credentials.sha256,
                    secret_generation=credentials.secret_generation,
                    beat=body.beat(),
                )
                found = None if taken is None else taken.found
                caller, decision = self._judge_beat(body, credentials, found)
                if isinstance(decision, Refused):
                    await self._refuse(
                        conn, request, body.workspace_id, decision, caller, credentials, found=found
                    )
                    return refusal(request, decision, workspace_id=body.workspace_id, credentials=credentials)
                if taken is not None and taken.counted:
                    self._lanes.remember(credentials.sha256)
                    generation = caller.generation
                    if taken.first:
                        _log.info("heartbeat.first", workspace=body.workspace_id, generation=generation)
                        _observe_first_beat(
                            request, body.workspace_id, generation, seconds=time.monotonic() - started
                        )
                    return answer(request, HeartbeatAnswer(lifecycle_generation=generation))
        raise StoreUnavailable("the token changed again and again")

    def _judge_beat(
        self, body: schemas.HeartbeatBody, credentials: Credentials, found: Found | None
    ) -> tuple[Caller, MayUse | Refused]:
        caller = identify(credentials, found, self._config.bootstrap_policy)
        return caller, decide_heartbeat(
            caller.standing, caller.verdict, bearer=caller.bearer, peer=caller.peer, full=body.is_full
        )

    async def update_card(self, request: Request) -> Response:
        """`POST /registry/update-card`: a use of the token, as good as a beat for confirming it."""
        body = schemas.read(schemas.CardBody, await request.body())
        observing.about(body.workspace_id)
        credentials = read_credentials(request, self._config, workspace_id=body.workspace_id)
        async with self._lanes.connection(credentials) as conn:
            # First without the lock: whoever proves nothing must not be able to make a box wait for it.
            found, caller, decision = await self._may_use(conn, body.workspace_id, credentials)
            if isinstance(decision, MayUse):
                async with conn.transaction():
                    await registering.lock_current(conn, body.workspace_id)
                    found, caller, decision = await self._may_use(conn, body.workspace_id, credentials)
                    if isinstance(decision, MayUse) and found is not None and found.token_id is not None:
                        generation = caller.generation
                        if caller.bearer is Bearer.PENDING:
                            await registering.revoke_others(
                                conn, body.workspace_id, generation=generation, keep=found.token_id
                            )
                        await registering.use_token(conn, found.token_id)
                        await registering.record_card(
                            conn, body.workspace_id, generation=generation, agent_card=body.agent_card
                        )
            if isinstance(decision, Refused):
                await self._refuse(
                    conn, request, body.workspace_id, decision, caller, credentials, found=found
                )
                return refusal(request, decision, workspace_id=body.workspace_id, credentials=credentials)
        self._lanes.remember(credentials.sha256)
        return answer(request, CardUpdated())

    async def _may_use(
        self, conn: Connection, workspace_id: str, credentials: Credentials
    ) -> tuple[Found | None, Caller, MayUse | Refused]:
        found = await find(conn, workspace_id, sha256=credentials.sha256)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        return found, caller, decide_use(caller.standing, caller.verdict, bearer=caller.bearer)

    async def _refuse(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        refused: Refused,
        caller: Caller,
        credentials: Credentials,
        *,
        found: Found | None,
    ) -> None:
        """The effects of a refused call, and its trail."""
        call = request.url.path.rpartition("/")[2]
        prefix = None if found is None else found.token_prefix
        strikes = 0
        if refused.strike:
            strikes = await beats.strike(conn, workspace_id, generation=caller.generation, strikes=STRIKES)
        if refused.evict and caller.named is not None:
            await intrusions.tell(conn, workspace_id, generation=caller.named)
        if found is not None:
            entry = auditing.entry(
                workspace_id,
                call=call,
                code=refused.code,
                caller=caller,
                credentials=credentials,
                token_prefix=prefix,
                request_id=request_id(request.scope),
                alert=strikes == STRIKES,
            )
            await self._auditor.write_refusal(conn, entry)
        _log.warning(
            f"{call}.refused",
            workspace=workspace_id,
            generation=caller.generation or None,
            code=refused.code,
            verdict=caller.verdict,
            bearer=caller.bearer,
            strikes=strikes,
            token_prefix=prefix,
            source=_text(credentials.source),
            request_id=request_id(request.scope),
        )


def _log_register(request: Request, workspace_id: str, result: Registered, credentials: Credentials) -> None:
    caller, decision = result.caller, result.decision
    refused = decision if isinstance(decision, Refused) else None
    write = _log.warning if refused is not None and refused.alert else _log.info
    write(
        "register.answered",
        workspace=workspace_id,
        generation=caller.generation or None,
        status=200 if refused is None else ANSWERS[refused.code].status,
        code=None if refused is None else refused.code,
        grant=decision.grant if isinstance(decision, Accepted) else None,
        first=result.first,
        verdict=caller.verdict,
        bearer=caller.bearer,
        token_prefix=result.bearer_prefix,
        source=_text(credentials.source),
        request_id=request_id(request.scope),
    )


def _observe_register(request: Request, workspace_id: str, result: Registered, *, seconds: float) -> None:
    caller, decision = result.caller, result.decision
    metrics.REGISTERS.labels(result.code, caller.verdict).inc()
    if isinstance(decision, Refused):
        if decision.alert:
            metrics.ALERTS.labels(result.code).inc()
        return
    # Later calls of a box that has its token are no part of the way to online.
    if result.first or decision.grant is not Grant.NONE:
        tracing.tell(
            "register",
            workspace_id,
            caller.generation,
            seconds=seconds,
            attributes={
                "onebox.code": result.code,
                "onebox.verdict": caller.verdict,
                "onebox.request_id": request_id(request.scope),
            },
        )


def _observe_first_beat(request: Request, workspace_id: str, generation: int, *, seconds: float) -> None:
    metrics.FIRST_BEATS.inc()
    attributes = {"onebox.request_id": request_id(request.scope)}
    tracing.tell("first beat", workspace_id, generation, seconds=seconds, attributes=attributes)


def _text(source: object) -> str | None:
    return None if source is None else str(source)
