"""The decision tables: register, heartbeat, use of a token, reading, reporting. No I/O, no clock."""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import assert_never

from register_api.auth.identity import CallerIdentity, Peer, RecordedWorkspace
from register_api.http.error_codes import Action, ErrorCode
from workflows.workspace.enums import Intent

ABANDONED_AFTER = timedelta(seconds=60)
"""Two heartbeat intervals. No working process holds a token that is unused for longer."""

SUCCESSORS_LIMIT = 5
"""New tokens per window for a box that keeps losing them."""

SUCCESSORS_WINDOW = timedelta(minutes=10)


class Bearer(StrEnum):
    """The state of the credential in the Authorization header."""

    ABSENT = "absent"
    NOT_VALID = "not_valid"
    """Malformed, unknown, revoked, or of another workspace or generation; or a bootstrap secret."""
    PENDING = "pending"
    ACTIVE = "active"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTokens:
    """The live tokens of the current generation."""

    pending: bool = False
    reissuable: bool = True
    """Whether the pending token can still be derived: its key is still configured."""
    active_unused_for: timedelta | None = None
    """None if no token is active."""
    retiring: bool = False
    successors: int = 0
    """Tokens minted within the window, without the generation's first."""

    @property
    def any(self) -> bool:
        """Whether any token is live."""
        return self.pending or self.retiring or self.active_unused_for is not None


class Grant(StrEnum):
    """Which token the response carries."""

    NONE = "none"
    REISSUE = "reissue"
    """The pending token, which stays the same until its first use."""
    MINT = "mint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """200. A live bearer counts as used; url and card are written."""

    grant: Grant = Grant.NONE
    confirm: bool = False
    """The bearer becomes active, and all other tokens of the generation are revoked."""
    retire_active: bool = False
    revoke_pending: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """An error response; the record stays unchanged."""

    code: ErrorCode
    retry_after: int | None = None
    """Seconds; replaces the code's default."""
    action: Action | None = None
    """Replaces the code's default action."""
    alert: bool = False
    """Whether an operator should look: a box that should not run, or one that cannot register."""
    evict: bool = False
    """Whether the caller's instance must be terminated, because its generation is superseded."""
    count_unauthenticated: bool = False
    """Whether this is a full heartbeat of the current box without a live token.

    After three in a row the box's credentials count as lost.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """The caller may do what it requests."""


def decide_register(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer, live: LiveTokens
) -> Accepted | Refused:
    """The response to a register call and its effects: the first matching row of the table."""
    if workspace is None:
        return _unknown_workspace(identity, bearer)
    match identity:
        case CallerIdentity.UNPROVEN:
            # No box can register with a deleted or stopped workspace, so there is nothing to alert about.
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
    """Whether a heartbeat counts: only with a live token of the current generation.

    A refused full heartbeat is counted as unauthenticated if evidence or address show that it is the current
    box's. The address grants nothing here under any policy: it only shows whose credentials are lost.
    `full` distinguishes a runtime's own heartbeat from partial ones that its tools send without a bearer.
    """
    decision = decide_use(workspace, identity, bearer=bearer)
    if isinstance(decision, Allowed) or workspace is None or _closed(workspace) is not None:
        return decision
    # A superseded box never changes the record, wherever it calls from (I6).
    is_the_box = identity is CallerIdentity.CURRENT or (
        peer is Peer.MATCHES and identity is not CallerIdentity.SUPERSEDED
    )
    return replace(decision, count_unauthenticated=full and is_the_box)


def decide_use(
    workspace: RecordedWorkspace | None, identity: CallerIdentity, *, bearer: Bearer
) -> Allowed | Refused:
    """Whether the caller holds a live token of the current generation."""
    if workspace is None:
        return _unknown_workspace(identity, bearer, action=Action.REREGISTER)
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
    """What people and programs may do with a workspace, besides being its box."""

    READ = "read"
    """Read its record, audit log and delegations, and the addresses of other workspaces."""
    DELEGATE = "delegate"
    """Delegate work to others in its name."""
    MANAGE_TOKENS = "manage_tokens"
    """Not for API tokens: whoever stole one could mint another before it is revoked."""


def decide_access(
    permission: Permission, *, operator: bool, api_token: bool, use: Allowed | Refused
) -> Allowed | Refused:
    """Whether an operator, the current box, or the holder of an API token has the permission."""
    if operator:
        return Allowed()
    if api_token:
        return Refused(code=ErrorCode.FORBIDDEN) if permission is Permission.MANAGE_TOKENS else Allowed()
    return use


def decide_report(
    workspace: RecordedWorkspace | None, use: Allowed | Refused, *, peer: Peer, terminal: bool
) -> Allowed | Refused:
    """Whether a runtime may report a delegation's progress.

    Runtimes in the field report without a bearer. The recorded address suffices for any state but a terminal
    one.
    """
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


def _unknown_workspace(identity: CallerIdentity, bearer: Bearer, *, action: Action | None = None) -> Refused:
    # An unproven caller gets the response for one that exists, so that it does not learn which ones do.
    if identity is CallerIdentity.UNPROVEN:
        return _unproven(bearer, action=action)
    return Refused(code=ErrorCode.WORKSPACE_UNKNOWN)


def _unproven(bearer: Bearer, *, action: Action | None = None, alert: bool = False) -> Refused:
    # Only the alert may depend on the record: the caller never sees it.
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
        return _successor(live)  # no token of the generation is in use
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
    # There is no pending token that can be derived: none was minted, it was revoked, or its key is gone.
    return Accepted(
        grant=Grant.MINT, revoke_pending=live.pending, retire_active=live.active_unused_for is not None
    )
