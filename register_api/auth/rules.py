"""The register and heartbeat decision tables, and the rules of a token's use, as functions of values.

No I/O and no clock: the standard library, and value types of other pure modules.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import assert_never

from register_api.auth.identity import CallerIdentity, Peer, RecordedWorkspace
from register_api.http.error_codes import Action, ErrorCode
from workflows.workspace.state import Intent

ABANDONED_AFTER = timedelta(seconds=60)
"""Two beats. A token that was unused for so long has no process behind it, or one that cannot use it."""

SUCCESSORS_LIMIT = 5
"""At most so many new tokens in the window for a box that loses them again and again."""

SUCCESSORS_WINDOW = timedelta(minutes=10)


class Bearer(StrEnum):
    """What the Authorization header is worth."""

    ABSENT = "absent"
    NOT_VALID = "not_valid"
    """Malformed, unknown, revoked, of another workspace or generation; or a bootstrap secret."""
    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTokens:
    """The live tokens of the current generation."""

    pending: bool = False
    reissuable: bool = True
    """Whether the pending one can still be derived: not if its key was taken out of service."""
    active_unused_for: timedelta | None = None
    """None: there is no active one."""
    retiring: bool = False
    successors: int = 0
    """Tokens after the generation's first one, within the window."""

    @property
    def any(self) -> bool:
        """Whether one is live."""
        return self.pending or self.retiring or self.active_unused_for is not None


class Grant(StrEnum):
    """Which token the answer carries."""

    NONE = "none"
    REISSUE = "reissue"
    """The pending one: the same until it is used."""
    MINT = "mint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """200, and the effects: the bearer, where it is live, is used; url and card are written."""

    grant: Grant = Grant.NONE
    confirm: bool = False
    """The bearer's token becomes active, and all others of the generation are revoked."""
    retire_active: bool = False
    revoke_pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An error answer; nothing is written."""

    code: ErrorCode
    retry_after: int | None = None
    """Seconds, where the code's own number is not the best one."""
    action: Action | None = None
    """Where the code's own action is not the right one."""
    alert: bool = False
    """Worth a human's look: a box that should not be, or one that cannot get in."""
    evict: bool = False
    """The caller's instance must end: its generation is over."""
    count_unauthenticated: bool = False
    """A full beat of the current box without a live token: three in a row, and its credential is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The bearer is a live token of the current generation, and does what it asks for."""


def decide_register(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer, live: LiveTokens
) -> Accepted | Refused:
    """What a register call is answered, and what it changes: the first row that applies."""
    if workspace is None:
        return Refused(code=ErrorCode.WORKSPACE_UNKNOWN)
    match identity:
        case CallerIdentity.UNPROVEN:
            # Nobody can get into a workspace that is over: there is nothing to look at.
            return _unproven(bearer, alert=not live.any and _closed(workspace) is None)
        case _ if (closed := _closed(workspace)) is not None:
            return closed
        case CallerIdentity.SUPERSEDED:
            return Refused(code=ErrorCode.SUPERSEDED, alert=True, evict=True)
        case CallerIdentity.UNDETERMINED:
            return Refused(code=ErrorCode.INSTANCE_NOT_READY)
        case CallerIdentity.CURRENT:
            return _decide_current(bearer, live)
        case _:
            assert_never(identity)


def decide_heartbeat(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer, peer: Peer, full: bool
) -> Allowed | Refused:
    """Whether a beat counts: with a live token of the current generation only.

    A full beat that does not count is unauthenticated if it is the current box's, by what it proves or by its
    address. The address grants nothing here, whatever the policy is: it only says whose credential is lost.
    `full` tells a runtime's own beat from the partial ones that helpers send without any bearer.
    """
    decision = decide_use(workspace, identity, bearer=bearer)
    if isinstance(decision, Allowed) or workspace is None or _closed(workspace) is not None:
        return decision
    # Not of a superseded one, wherever it calls from: it changes nothing on the record (I6).
    is_the_box = identity is CallerIdentity.CURRENT or (
        peer is Peer.MATCHES and identity is not CallerIdentity.SUPERSEDED
    )
    return replace(decision, count_unauthenticated=full and is_the_box)


def decide_use(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer
) -> Allowed | Refused:
    """Whether a call that needs a live token of the current generation may do what it asks for."""
    if workspace is None:
        return Refused(code=ErrorCode.WORKSPACE_UNKNOWN)
    match identity:
        case CallerIdentity.UNPROVEN:
            return _unproven(bearer, action=Action.REREGISTER)
        case _ if (closed := _closed(workspace)) is not None:
            return closed
        case CallerIdentity.SUPERSEDED:
            return Refused(code=ErrorCode.SUPERSEDED, evict=True)
        case CallerIdentity.UNDETERMINED:
            return Refused(code=ErrorCode.INSTANCE_NOT_READY)
        case CallerIdentity.CURRENT if bearer in (Bearer.ABSENT, Bearer.NOT_VALID):
            return Refused(code=ErrorCode.REREGISTER_REQUIRED)
        case CallerIdentity.CURRENT:
            return Allowed()
        case _:
            assert_never(identity)


class Permission(StrEnum):
    """What people and programs may want of a workspace, beside being its box."""

    READ = "read"
    """Its record, its audit trail, its delegations; the addresses of others."""
    DELEGATE = "delegate"
    """Hand work to others in its name."""
    MANAGE_TOKENS = "manage_tokens"
    """An API token may not: what it leaked to could make itself another one before it is revoked."""


def decide_access(
    permission: Permission, *, operator: bool, api_token: bool, use: Allowed | Refused, bearer: Bearer
) -> Allowed | Refused:
    """Whether the caller has the right: an operator, the current box, or the holder of an API token.

    Only operators learn which workspaces exist.
    """
    if operator:
        return Allowed()
    if api_token:
        return Refused(code=ErrorCode.FORBIDDEN) if permission is Permission.MANAGE_TOKENS else Allowed()
    if isinstance(use, Refused) and use.code is ErrorCode.WORKSPACE_UNKNOWN:
        return _unproven(bearer, action=Action.REREGISTER)  # the same words as for one that exists
    return use


def decide_report(
    workspace: RecordedWorkspace | None, use: Allowed | Refused, *, peer: Peer, terminal: bool, bearer: Bearer
) -> Allowed | Refused:
    """Whether a runtime may say how far a delegation is.

    Runtimes in the field say it without a bearer: that they call from the recorded address is enough for
    every word but a terminal one.
    """
    if isinstance(use, Refused) and use.code is ErrorCode.WORKSPACE_UNKNOWN:
        return _unproven(bearer, action=Action.REREGISTER)
    is_superseded = isinstance(use, Refused) and use.code is ErrorCode.SUPERSEDED
    if not terminal and not is_superseded and peer is Peer.MATCHES and workspace is not None:
        return _closed(workspace) or Allowed()
    return use


def _closed(workspace: RecordedWorkspace) -> Refused | None:
    if workspace.is_deleted:
        return Refused(code=ErrorCode.WORKSPACE_REMOVED)
    if workspace.intent is Intent.STOP:
        return Refused(code=ErrorCode.WORKSPACE_STOPPED)
    return None


def _unproven(bearer: Bearer, *, action: Action | None = None, alert: bool = False) -> Refused:
    # Nothing but the alert, which the caller never sees, may depend on the record.
    code = ErrorCode.TOKEN_MISSING if bearer is Bearer.ABSENT else ErrorCode.TOKEN_INVALID
    return Refused(code=code, action=action, alert=alert)


def _decide_current(bearer: Bearer, live: LiveTokens) -> Accepted | Refused:
    match bearer:
        case Bearer.ACTIVE:
            return Accepted()
        case Bearer.PENDING:
            return Accepted(confirm=True)
        case Bearer.RETIRING:
            return _successor(live)
        case Bearer.ABSENT | Bearer.NOT_VALID:
            return _without_token(live)
        case _:
            assert_never(bearer)


def _without_token(live: LiveTokens) -> Accepted | Refused:
    unused_for = live.active_unused_for
    if live.pending or unused_for is None:
        return _successor(live)  # the gate is open, or never closed: nobody has used what was given
    if unused_for < ABANDONED_AFTER:
        return Refused(
            code=ErrorCode.TOKEN_IN_USE, retry_after=ceil((ABANDONED_AFTER - unused_for).total_seconds())
        )
    if live.successors >= SUCCESSORS_LIMIT:
        return Refused(code=ErrorCode.MINT_LIMITED, alert=True)
    return Accepted(grant=Grant.MINT, retire_active=True)


def _successor(live: LiveTokens) -> Accepted:
    if live.pending and live.reissuable:
        return Accepted(grant=Grant.REISSUE)
    # An operator revoked the pending one, its key is gone, or there never was one.
    return Accepted(
        grant=Grant.MINT, revoke_pending=live.pending, retire_active=live.active_unused_for is not None
    )
