"""Checks who may read a workspace or manage its tokens: an operator, its current box, an API token's holder.

`rules.decide_access` decides; this module collects its input and writes the audit log.
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
    """A caller that holds the permission."""

    actor: str
    """`operator`, or a kind of token with its prefix."""
    caller: Caller
    found: CallerRecord | None
    """None if the workspace does not exist; only operators get this far then."""
    is_box: bool
    """Whether the caller is the current box, by its instance token."""


class Access:
    """Checks permissions, on the database connection that the handler holds."""

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
        """The authorized caller, or the refusal, which is also written to the audit log."""
        found = await read_caller(conn, workspace_id, credentials)
        caller = identify(credentials, found, self._config.bootstrap_policy)
        sha256, prefix = credentials.sha256, None
        if found is not None and sha256 is not None:
            prefix = await api_tokens.verify_and_touch(conn, workspace_id, sha256=sha256)
        operator = self._config.is_operator(sha256)
        use = decide_use(caller.workspace, caller.identity, bearer=caller.bearer)
        decision = decide_access(permission, operator=operator, api_token=prefix is not None, use=use)
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
        if operator:
            actor = "operator"
        elif prefix is not None:
            actor = f"api {prefix}"
        else:
            actor = "" if found is None else f"instance {found.token_prefix}"
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
        caller: AuthorizedCaller,
        token_prefix: str | None = None,
    ) -> None:
        """Write an action of an authorized caller to the audit log."""
        entry = audit_entry(
            workspace_id,
            call=f"{call} by {caller.actor}",
            code=code,
            caller=caller.caller,
            credentials=credentials,
            token_prefix=token_prefix,
            request_id=request_id(request.scope),
        )
        await self._auditor.write(conn, entry)


async def read_caller(conn: Connection, workspace_id: str, credentials: Credentials) -> CallerRecord | None:
    """The workspace's record and that of the presented token; None if the workspace is unknown.

    A malformed ID is never sent to PostgreSQL, which refuses NUL characters.
    """
    if WORKSPACE_ID.fullmatch(workspace_id) is None:
        return None
    return await find_caller(conn, workspace_id, sha256=credentials.sha256)
