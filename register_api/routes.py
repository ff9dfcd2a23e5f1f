"""What boxes call: registering and beating, from a request to its answer and its line in the log.

Holds no rules: those are in `decision`.
"""

import structlog
from starlette.requests import Request
from starlette.responses import Response

from register_api import schemas
from register_api.answers import ANSWERS
from register_api.config import ApiConfig
from register_api.decision import Accepted, Refused, decide_use
from register_api.errors import request_id
from register_api.evidence import Caller, identify, read_credentials
from register_api.registering import Registered, Registrar
from register_api.replies import answer, refusal, source
from store import beats
from store.pool import Pool, StoreUnavailable, connection

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

BEAT_ATTEMPTS = 3
"""A token can change hands between being found and being used; then the beat is judged anew."""


class BoxRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, pool: Pool) -> None:
        self._config = config
        self._pool = pool
        self._registrar = Registrar(pool, config.keys)

    async def register(self, request: Request) -> Response:
        """`POST /registry/register`."""
        body = schemas.read(schemas.RegisterBody, await request.body())
        credentials = read_credentials(request, self._config.keys, workspace_id=body.id)
        result = await self._registrar.register(body, credentials)
        _log_register(request, body.id, result)
        if isinstance(result.decision, Refused):
            return refusal(request, result.decision, workspace_id=body.id, credentials=credentials)
        registered: dict[str, object] = {"status": "registered"}
        if result.token is not None:
            registered["auth_token"] = result.token
        return answer(request, registered)

    async def heartbeat(self, request: Request) -> Response:
        """`POST /registry/heartbeat`: one round trip to the database."""
        body = schemas.read(schemas.HeartbeatBody, await request.body())
        credentials = read_credentials(request, self._config.keys, workspace_id=body.workspace_id)
        for _ in range(BEAT_ATTEMPTS):
            async with connection(self._pool) as conn:
                taken = await beats.take_in(
                    conn,
                    body.workspace_id,
                    sha256=credentials.sha256,
                    secret_generation=min(credentials.secrets, default=None),
                    beat=body.beat(),
                )
            caller = identify(credentials, None if taken is None else taken.found)
            decision = decide_use(caller.standing, caller.verdict, bearer=caller.bearer)
            if isinstance(decision, Refused):
                _log_refused_beat(request, body.workspace_id, refused=decision, caller=caller, taken=taken)
                return refusal(request, decision, workspace_id=body.workspace_id, credentials=credentials)
            if taken is not None and taken.counted:
                generation = taken.found.current
                if taken.first:
                    _log.info("heartbeat.first", workspace=body.workspace_id, generation=generation)
                return answer(request, {"status": "ok", "lifecycle_generation": generation})
        raise StoreUnavailable("the token changed again and again")


def _log_register(request: Request, workspace_id: str, result: Registered) -> None:
    caller, decision = result.caller, result.decision
    refused = decision if isinstance(decision, Refused) else None
    write = _log.warning if refused is not None and refused.alert else _log.info
    write(
        "register.answered",
        workspace=workspace_id,
        generation=None if caller.standing is None else caller.standing.current,
        status=200 if refused is None else ANSWERS[refused.code].status,
        code=None if refused is None else refused.code,
        grant=decision.grant if isinstance(decision, Accepted) else None,
        first=result.first,
        verdict=caller.verdict,
        bearer=caller.bearer,
        token_prefix=result.bearer_prefix,
        source=source(request),
        request_id=request_id(request.scope),
    )


def _log_refused_beat(
    request: Request, workspace_id: str, *, refused: Refused, caller: Caller, taken: beats.Taken | None
) -> None:
    _log.warning(
        "heartbeat.refused",
        workspace=workspace_id,
        generation=None if taken is None else taken.found.current,
        code=refused.code,
        verdict=caller.verdict,
        bearer=caller.bearer,
        token_prefix=None if taken is None else taken.found.token_prefix,
        source=source(request),
        request_id=request_id(request.scope),
    )
