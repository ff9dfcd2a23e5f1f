"""What is read from the register API: the record, a box's own state, and whether the API is fit to serve.

Changes nothing. Who may read is `decision`'s, what a record shows is `store.reading`'s.
"""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from register_api.answers import Code
from register_api.config import ApiConfig
from register_api.decision import Refused, Verdict, decide_use
from register_api.errors import ErrorDetail, error_response
from register_api.evidence import Caller, Credentials, identify, read_credentials
from register_api.replies import answer, refusal
from store import migrate, reading
from store.pool import Connection, Pool, StoreUnavailable, connection
from store.standing import find
from workflows.names import WORKSPACE_ID
from workflows.state import Intent


class ReadRoutes:
    """The handlers, and what they share."""

    def __init__(self, config: ApiConfig, pool: Pool) -> None:
        self._config = config
        self._pool = pool

    async def record(self, request: Request, workspace_id: str) -> Response:
        """`GET /workspaces/{id}`: for the workspace's own live token, or an operator's."""
        credentials = read_credentials(request, self._config.keys, workspace_id=workspace_id)
        async with connection(self._pool) as conn:
            if credentials.sha256 not in self._config.operator_token_hashes:
                caller = await _identify(conn, workspace_id, credentials)
                decision = decide_use(caller.standing, caller.verdict, bearer=caller.bearer)
                if caller.standing is None:
                    decision = _unproven(credentials)  # only operators are told which IDs exist
                if isinstance(decision, Refused):
                    return refusal(request, decision, workspace_id=workspace_id, credentials=credentials)
            record = await _read(conn, workspace_id)
        if record is None:
            return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
        return answer(request, self._shown(record))

    async def state(self, request: Request, workspace_id: str) -> Response:
        """`GET /workspaces/{id}/state`: for a box of whatever generation, which must learn that it is over.

        That it is over is a 200 with a word, not a 410: the question was answered.
        """
        credentials = read_credentials(request, self._config.keys, workspace_id=workspace_id)
        async with connection(self._pool) as conn:
            caller = await _identify(conn, workspace_id, credentials)
            if caller.verdict is Verdict.UNPROVEN and not credentials.secrets:
                refused = _unproven(credentials)
                return refusal(request, refused, workspace_id=workspace_id, credentials=credentials)
            record = await _read(conn, workspace_id)
        if record is None:
            return error_response(request, Code.WORKSPACE_UNKNOWN, ErrorDetail(workspace_id=workspace_id))
        phase = reading.shown_phase(record, stale_after=self._config.heartbeat_stale)
        superseded = caller.verdict is Verdict.SUPERSEDED and record.intent == Intent.RUN
        return answer(
            request,
            {
                "workspace_id": workspace_id,
                "status": "superseded" if superseded else phase,
                "paused": record.intent == Intent.STOP,
                "deleted": record.deleted or record.intent == Intent.DELETE,
            },
        )

    async def healthz(self, request: Request) -> Response:
        """The process answers; nothing else is asked."""
        return answer(request, {"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """The database answers, and has what this code needs."""
        try:
            async with connection(self._pool) as conn:
                missing = await migrate.pending(conn)
        except StoreUnavailable as error:
            detail = ErrorDetail(error=f"not ready: database unavailable ({error})")
            return error_response(request, Code.NOT_READY, detail)
        if missing:
            detail = ErrorDetail(error=f"not ready: migrations missing: {', '.join(missing)}")
            return error_response(request, Code.NOT_READY, detail)
        return answer(request, {"status": "ready"})

    def _shown(self, record: reading.Record) -> dict[str, object]:
        stale_after = self._config.heartbeat_stale
        return {
            "workspace_id": record.workspace_id,
            "phase": reading.shown_phase(record, stale_after=stale_after),
            "generation": record.newest,
            "instance_id": record.instance_id,
            "private_ip": None if record.private_ip is None else str(record.private_ip),
            "dns_name": record.dns_name,
            "url": record.url,
            "last_heartbeat_at": _timestamp(record.last_beat_at),
            "last_processed_at": None,
            "recreates": record.recreates,
            "last_error": record.last_error,
            "conditions": reading.shown_conditions(record, stale_after=stale_after),
        }


async def _identify(conn: Connection, workspace_id: str, credentials: Credentials) -> Caller:
    known = WORKSPACE_ID.fullmatch(workspace_id) is not None
    found = await find(conn, workspace_id, sha256=credentials.sha256) if known else None
    return identify(credentials, found)


async def _read(conn: Connection, workspace_id: str) -> reading.Record | None:
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None  # also keeps out what PostgreSQL refuses as text
    return await reading.read_record(conn, workspace_id)


def _unproven(credentials: Credentials) -> Refused:
    return Refused(code=Code.TOKEN_INVALID if credentials.came else Code.TOKEN_MISSING)


def _timestamp(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
