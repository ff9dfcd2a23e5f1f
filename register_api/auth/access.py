"""Who may read a workspace, and manage its tokens: an operator, its current box, a holder of an API token.

The rule is `decision.decide_access`; here is what it is told, and the trail that it leaves.
"""

from dataclasses import dataclass

from starlette.requests import Request

from register_api.auth.audit import Auditor, audit_entry
from register_api.auth.credentials import Caller, Credentials, identify
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.rules import Permission, Refused, decide_access, decide_use
from register_api.http.config import ApiConfig
from register_api.http.errors import request_id
from store.db.pool import Connection
from store.registration import api_tokens
from store.registration.caller_lookup import CallerRecord, find_caller
from workflows.shared.workspace_ids import WORKSPACE_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizedCaller:
    """Who was let in."""

    actor: str
    """`operator`, or a kind of token with its prefix."""
    caller: Caller
    found: CallerRecord | None
    """None: there is no such workspace, as only operators are told."""
    is_box: bool
    """Whether it is the current box, by its instance token."""


class Access:
    """Checks rights on a connection of the caller's."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, auditor: Auditor) -> None:
        self._config = config
        self._pool = pool
        self._auditor = auditor

    async def check(
        self,
        conn: Connection,
        request: Request,
        permission: Permission,
        workspace_id: str,
        credentials: Credentials,
    ) -> AuthorizedCaller | Refused:
        """Who the caller is to this workspace, or why it may not; a refusal goes into the trail."""
        found = await read_caller(conn, workspace_id, credentials)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        sha256, prefix = credentials.sha256, None
        if found is not None and sha256 is not None:
            prefix = await api_tokens.verify_and_touch(conn, workspace_id, sha256=sha256)
        operator = self._config.is_operator(sha256)
        use = decide_use(caller.workspace, caller.identity, bearer=caller.bearer)
        decision = decide_access(
            permission, operator=operator, api_token=prefix is not None, use=use, bearer=caller.bearer
        )
        if isinstance(decision, Refused):
            if found is not None:
                refusal = audit_entry(
                    workspace_id,
                    call=permission,
                    code=decision.code,
                    caller=caller,
                    credentials=credentials,
                    token_prefix=prefix or found.token_prefix,
                    request_id=request_id(request.scope),
                )
                await self._auditor.write_refusal(conn, refusal)
            return decision
        self._pool.mark_known(sha256)
        own = "" if found is None else f"instance {found.token_prefix}"
        actor = "operator" if operator else f"api {prefix}" if prefix is not None else own
        return AuthorizedCaller(
            actor=actor, caller=caller, found=found, is_box=not operator and prefix is None
        )

    async def audit(
        self,
        conn: Connection,
        request: Request,
        workspace_id: str,
        credentials: Credentials,
        *,
        call: str,
        code: str,
        admitted: AuthorizedCaller,
        token_prefix: str | None = None,
    ) -> None:
        """Put what was done into the trail."""
        done = audit_entry(
            workspace_id,
            call=f"{call} by {admitted.actor}",
            code=code,
            caller=admitted.caller,
            credentials=credentials,
            token_prefix=token_prefix,
            request_id=request_id(request.scope),
        )
        await self._auditor.write(conn, done)


async def read_caller(conn: Connection, workspace_id: str, credentials: Credentials) -> CallerRecord | None:
    """The workspace beside the presented token; nothing for what cannot be an ID.

    That also keeps out what PostgreSQL refuses as text.
    """
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None
    return await find_caller(conn, workspace_id, sha256=credentials.sha256)
