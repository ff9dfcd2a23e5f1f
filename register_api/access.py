"""Who may read a workspace, and manage its tokens: an operator, its current box, a holder of an API token.

The rule is `decision.decide_access`; here is what it is told, and the trail that it leaves.
"""

from dataclasses import dataclass

from starlette.requests import Request

from register_api.auditing import Auditor, entry
from register_api.config import ApiConfig
from register_api.decision import Refused, Right, decide_access, decide_use
from register_api.errors import request_id
from register_api.evidence import Caller, Credentials, identify
from register_api.lanes import Lanes
from store import api_tokens
from store.pool import Connection
from store.standing import Found, find
from workflows.names import WORKSPACE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """Who was let in."""

    by: str
    """`operator`, or a kind of token with its prefix."""
    caller: Caller
    found: Found | None
    """None: there is no such workspace, as only operators are told."""
    is_box: bool
    """Whether it is the current box, by its instance token."""


class Access:
    """Checks rights on a connection of the caller's."""

    def __init__(self, config: ApiConfig, lanes: Lanes, auditor: Auditor) -> None:
        self._config = config
        self._lanes = lanes
        self._auditor = auditor

    async def check(
        self, conn: Connection, request: Request, right: Right, workspace_id: str, credentials: Credentials
    ) -> Admitted | Refused:
        """Who the caller is to this workspace, or why it may not; a refusal goes into the trail."""
        found = await look_up(conn, workspace_id, credentials)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        sha256, prefix = credentials.sha256, None
        if found is not None and sha256 is not None:
            prefix = await api_tokens.use(conn, workspace_id, sha256=sha256)
        operator = self._config.is_operator(sha256)
        use = decide_use(caller.standing, caller.verdict, bearer=caller.bearer)
        decision = decide_access(
            right, operator=operator, api_token=prefix is not None, use=use, bearer=caller.bearer
        )
        if isinstance(decision, Refused):
            if found is not None:
                refusal = entry(
                    workspace_id,
                    call=right,
                    code=decision.code,
                    caller=caller,
                    credentials=credentials,
                    token_prefix=prefix or found.token_prefix,
                    request_id=request_id(request.scope),
                )
                await self._auditor.write_refusal(conn, refusal)
            return decision
        self._lanes.remember(sha256)
        own = "" if found is None else f"instance {found.token_prefix}"
        by = "operator" if operator else f"api {prefix}" if prefix is not None else own
        return Admitted(by=by, caller=caller, found=found, is_box=not operator and prefix is None)

    async def audit(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        credentials: Credentials,
        *,
        call: str,
        code: str,
        admitted: Admitted,
        token_prefix: str | None = None,
    ) -> None:
        """Put what was done into the trail."""
        done = entry(
            workspace_id,
            call=f"{call} by {admitted.by}",
            code=code,
            caller=admitted.caller,
            credentials=credentials,
            token_prefix=token_prefix,
            request_id=request_id(request.scope),
        )
        await self._auditor.write(conn, done)


async def look_up(conn: Connection, workspace_id: str, credentials: Credentials) -> Found | None:
    """The workspace beside the presented token; nothing for what cannot be an ID.

    That also keeps out what PostgreSQL refuses as text.
    """
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None
    return await find(conn, workspace_id, sha256=credentials.sha256)
