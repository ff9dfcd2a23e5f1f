"""A register call against the database: look, decide, and do it under the generation's lock.

The rules are `decision`'s, the SQL is the store's; here is the order in which they meet.
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
    """What a register call came to, for the answer and for the log."""

    decision: Accepted | Refused
    caller: Caller
    first: bool = False
    bearer_prefix: str | None = None
    """Of the presented token, if it is one of ours."""
    token: str | None = field(default=None, repr=False)
    """To be put into the answer."""

    @property
    def code(self) -> str:
        """What it came to in one word: an error's code, or what the box got."""
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
    """The record as one look found it, and what the table says to it."""

    outcome: RegisterResult
    current: int | None
    tokens: store.TokenRows
    bearer_id: UUID | None


class Registrar:
    """Register calls of boxes."""

    def __init__(self, config: ApiConfig, pool: PriorityPool, auditor: Auditor) -> None:
        self._keys = config.keys
        self._policy = config.bootstrap_policy
        self._pool = pool
        self._auditor = auditor

    async def register(
        self, body: RegisterBody, credentials: Credentials, *, request_id: str
    ) -> RegisterResult:
        """Decide and apply. Raises `StoreUnavailable`; then nothing was changed, or all of it."""
        async with self._pool.connection(credentials) as conn:
            # First without the lock: whoever proves nothing must not be able to make a box wait for it.
            seen = await self._evaluate(conn, body.id, credentials)
            if isinstance(seen.outcome.decision, Refused):
                await self._refuse(conn, body.id, seen.outcome, credentials, request_id=request_id)
                return seen.outcome
            async with conn.transaction():
                # If it is superseded while this waits, the second look refuses: generations only go forwards.
                locked = await store.lock_current(conn, body.id)
                seen = await self._evaluate(conn, body.id, credentials)
                decision = seen.outcome.decision
                if isinstance(decision, Refused):
                    await self._refuse(conn, body.id, seen.outcome, credentials, request_id=request_id)
                    return seen.outcome
                if locked is None or locked != seen.current:
                    raise StoreUnavailable("nothing is written without the generation's lock")
                registered = await self._apply(conn, body, decision=decision, seen=seen, current=locked)
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
            return  # no row appears for a workspace that is not ours
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
        self, conn: Connection, body: RegisterBody, *, decision: Accepted, seen: _Evaluation, current: int
    ) -> RegisterResult:
        if seen.bearer_id is not None and seen.outcome.caller.bearer is not Bearer.NOT_VALID:
            if decision.confirm:
                await store.revoke_others(conn, body.id, generation=current, keep=seen.bearer_id)
            await store.use_token(conn, seen.bearer_id)
        if decision.revoke_pending:
            await store.revoke_pending(conn, body.id, generation=current)
        if decision.retire_active:
            await store.retire_active(conn, body.id, generation=current)
        token = await self._token(conn, body.id, generation=current, grant=decision.grant, tokens=seen.tokens)
        first = await store.record_registration(
            conn,
            body.id,
            generation=current,
            url=body.url,
            agent_card=body.agent_card,
            delivery_mode=body.delivery_mode,
        )
        return replace(seen.outcome, first=first, token=token)

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
