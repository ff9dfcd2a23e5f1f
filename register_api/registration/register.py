"""Runs a register call: read the record, decide, then decide again and apply under the generation's lock.

`auth.rules` has the decision table, `store.registration` the SQL.
"""

from dataclasses import dataclass, field, replace
from uuid import UUID

from register_api.auth import audit
from register_api.auth.audit import Auditor
from register_api.auth.credentials import Caller, Credentials, identify
from register_api.auth.priority_pool import PriorityPool
from register_api.auth.rules import (
    SUCCESSORS_WINDOW,
    Accepted,
    Bearer,
    Grant,
    LiveTokens,
    Refused,
    decide_register,
)
from register_api.http.config import ApiConfig
from register_api.schema.request_models import RegisterBody
from store.db.pool import Connection, StoreUnavailable
from store.registration import register_writes as store
from store.registration import superseded_calls
from store.registration.caller_lookup import find_caller
from store.registration.credentials import new_nonce, token_hash, token_prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterResult:
    """The result of a register call, for response and log."""

    decision: Accepted | Refused
    caller: Caller
    first: bool = False
    bearer_prefix: str | None = None
    """The prefix of the presented token, if it is known."""
    token: str | None = field(default=None, repr=False)
    """The token for the response."""

    @property
    def code(self) -> str:
        """The error code, or the kind of success: `minted`, `replayed`, `confirmed` or `registered`."""
        match self.decision:
            case Refused(code=code):
                return code
            case Accepted(grant=Grant.MINT):
                return "minted"
            case Accepted(grant=Grant.REISSUE):
                return "replayed"
            case Accepted(confirm=True):
                return "confirmed"
            case _:
                return "registered"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluation:
    """The record as read once, and the decision for it."""

    outcome: RegisterResult
    current: int | None
    tokens: store.TokenRows
    bearer_id: UUID | None


class Registrar:
    """Decides and applies register calls."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, auditor: Auditor) -> None:
        self._keys = config.keys
        self._policy = config.bootstrap_policy
        self._pool = pool
        self._auditor = auditor

    async def register(
        self, body: RegisterBody, credentials: Credentials, *, request_id: str
    ) -> RegisterResult:
        """The result of the call. Raises `StoreUnavailable`: then nothing was written, or everything."""
        async with self._pool.connection(credentials) as conn:
            # First without the lock: an unproven caller must not make a box wait for it.
            evaluated = await self._evaluate(conn, body.id, credentials)
            if isinstance(evaluated.outcome.decision, Refused):
                await self._refuse(conn, body.id, evaluated.outcome, credentials, request_id=request_id)
                return evaluated.outcome
            async with conn.transaction():
                # Decide again: the generation may have been superseded while this waited for the lock.
                locked = await store.lock_current(conn, body.id)
                evaluated = await self._evaluate(conn, body.id, credentials)
                decision = evaluated.outcome.decision
                if isinstance(decision, Refused):
                    await self._refuse(conn, body.id, evaluated.outcome, credentials, request_id=request_id)
                    return evaluated.outcome
                if locked is None or locked != evaluated.current:
                    raise StoreUnavailable("the current generation changed during the call")
                registered = await self._apply(
                    conn, body, decision=decision, evaluated=evaluated, current=locked
                )
                await self._audit(conn, body.id, registered, credentials, request_id=request_id)
            if registered.caller.bearer is not Bearer.NOT_VALID:
                self._pool.mark_known(credentials.sha256)
            return registered

    async def _refuse(
        self,
        conn: Connection,
        workspace_id: str,
        outcome: RegisterResult,
        credentials: Credentials,
        *,
        request_id: str,
    ) -> None:
        decision, caller = outcome.decision, outcome.caller
        if caller.workspace is None:
            return  # the audit log has no rows for unknown workspaces
        if isinstance(decision, Refused) and decision.evict and caller.superseded_generation is not None:
            await superseded_calls.enqueue_superseded_call(
                conn, workspace_id, generation=caller.superseded_generation
            )
        await self._audit(conn, workspace_id, outcome, credentials, request_id=request_id)

    async def _audit(
        self,
        conn: Connection,
        workspace_id: str,
        outcome: RegisterResult,
        credentials: Credentials,
        *,
        request_id: str,
    ) -> None:
        decision = outcome.decision
        refused = isinstance(decision, Refused)
        entry = audit.audit_entry(
            workspace_id,
            call="register",
            code=outcome.code,
            caller=outcome.caller,
            credentials=credentials,
            token_prefix=outcome.bearer_prefix,
            request_id=request_id,
            alert=isinstance(decision, Refused) and decision.alert,
        )
        await (self._auditor.write_refusal if refused else self._auditor.write)(conn, entry)

    async def _evaluate(self, conn: Connection, workspace_id: str, credentials: Credentials) -> _Evaluation:
        found = await find_caller(conn, workspace_id, sha256=credentials.sha256)
        caller = identify(credentials, found, self._policy)
        current = None if found is None else found.current
        tokens = await store.read_tokens(
            conn, workspace_id, generation=current or 0, window=SUCCESSORS_WINDOW
        )
        decision = decide_register(
            caller.workspace, caller.identity, bearer=caller.bearer, live=self._live_tokens(tokens)
        )
        outcome = RegisterResult(
            decision=decision,
            caller=caller,
            bearer_prefix=None if found is None else found.token_prefix,
        )
        bearer_id = None if found is None else found.token_id
        return _Evaluation(outcome=outcome, current=current, tokens=tokens, bearer_id=bearer_id)

    def _live_tokens(self, tokens: store.TokenRows) -> LiveTokens:
        by_state = {token.state: token for token in tokens.live}
        pending, active = by_state.get(Bearer.PENDING), by_state.get(Bearer.ACTIVE)
        return LiveTokens(
            pending=pending is not None,
            reissuable=pending is not None and pending.key_id in self._keys.keys,
            active_unused_for=None if active is None else active.unused_for,
            retiring=Bearer.RETIRING in by_state,
            successors=tokens.successors,
        )

    async def _apply(
        self,
        conn: Connection,
        body: RegisterBody,
        *,
        decision: Accepted,
        evaluated: _Evaluation,
        current: int,
    ) -> RegisterResult:
        if evaluated.bearer_id is not None and evaluated.outcome.caller.bearer is not Bearer.NOT_VALID:
            if decision.confirm:
                await store.revoke_others(conn, body.id, generation=current, keep=evaluated.bearer_id)
            await store.use_token(conn, evaluated.bearer_id)
        if decision.revoke_pending:
            await store.revoke_pending(conn, body.id, generation=current)
        if decision.retire_active:
            await store.retire_active(conn, body.id, generation=current)
        token = await self._token(
            conn, body.id, generation=current, grant=decision.grant, tokens=evaluated.tokens
        )
        first = await store.record_registration(
            conn,
            body.id,
            generation=current,
            url=body.url,
            agent_card=body.agent_card,
            delivery_mode=body.delivery_mode,
        )
        return replace(evaluated.outcome, first=first, token=token)

    async def _token(
        self, conn: Connection, workspace_id: str, *, generation: int, grant: Grant, tokens: store.TokenRows
    ) -> str | None:
        match grant:
            case Grant.NONE:
                return None
            case Grant.REISSUE:
                pending = next(token for token in tokens.live if token.nonce is not None)
                return self._keys.token(
                    workspace_id, generation, nonce=pending.nonce or b"", key_id=pending.key_id
                )
            case Grant.MINT:
                nonce, key_id = new_nonce(), self._keys.current
                token = self._keys.token(workspace_id, generation, nonce=nonce, key_id=key_id)
                await store.insert_token(
                    conn,
                    workspace_id,
                    generation=generation,
                    sha256=token_hash(token),
                    prefix=token_prefix(token),
                    key_id=key_id,
                    nonce=nonce,
                )
                return token
