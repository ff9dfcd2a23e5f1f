"""The register and heartbeat decision tables, and the rules of a token's use, as functions of values.

No I/O and no clock: the standard library, and value types of other pure modules.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from math import ceil
from typing import assert_never

from register_api.answers import Action, Code
from register_api.verdict import Peer, Standing, Verdict
from workflows.state import Intent

QUIET = timedelta(seconds=60)
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
    replayable: bool = True
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
    REPLAY = "replay"
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

    code: Code
    retry_after: int | None = None
    """Seconds, where the code's own number is not the best one."""
    action: Action | None = None
    """Where the code's own action is not the right one."""
    alert: bool = False
    """Worth a human's look: a box that should not be, or one that cannot get in."""
    evict: bool = False
    """The caller's instance must end: its generation is over."""
    strike: bool = False
    """A full beat of the current box without a live token: three in a row, and its credential is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MayUse:
    """The bearer is a live token of the current generation, and does what it asks for."""


def decide_register(
    standing: Standing | None, verdict: Verdict, *, bearer: Bearer, live: LiveTokens
) -> Accepted | Refused:
    """What a register call is answered, and what it changes: the first row that applies."""
    if standing is None:
        return Refused(code=Code.WORKSPACE_UNKNOWN)
    match verdict:
        case Verdict.UNPROVEN:
            # Nobody can get into a workspace that is over: there is nothing to look at.
            return _unproven(bearer, alert=not live.any and _closed(standing) is None)
        case _ if (closed := _closed(standing)) is not None:
            return closed
        case Verdict.SUPERSEDED:
            return Refused(code=Code.SUPERSEDED, alert=True, evict=True)
        case Verdict.UNDETERMINED:
            return Refused(code=Code.INSTANCE_NOT_READY)
        case Verdict.CURRENT:
            return _decide_current(bearer, live)
        case _:
            assert_never(verdict)


def decide_heartbeat(
    standing: Standing | None, verdict: Verdict, *, bearer: Bearer, peer: Peer, full: bool
) -> MayUse | Refused:
    """Whether a beat counts: with a live token of the current generation only.

    A full beat that does not count is a strike if it is the current box's, by what it proves or by its
    address. The address grants nothing here, whatever the policy is: it only says whose credential is lost.
    `full` tells a runtime's own beat from the partial ones that helpers send without any bearer.
    """
    decision = decide_use(standing, verdict, bearer=bearer)
    if isinstance(decision, MayUse) or standing is None or _closed(standing) is not None:
        return decision
    # Not of a superseded one, wherever it calls from: it changes nothing on the record (I6).
    is_the_box = verdict is Verdict.CURRENT or (peer is Peer.MATCHES and verdict is not Verdict.SUPERSEDED)
    return replace(decision, strike=full and is_the_box)


def decide_use(standing: Standing | None, verdict: Verdict, *, bearer: Bearer) -> MayUse | Refused:
    """Whether a call that needs a live token of the current generation may do what it asks for."""
    if standing is None:
        return Refused(code=Code.WORKSPACE_UNKNOWN)
    match verdict:
        case Verdict.UNPROVEN:
            return _unproven(bearer, action=Action.REREGISTER)
        case _ if (closed := _closed(standing)) is not None:
            return closed
        case Verdict.SUPERSEDED:
            return Refused(code=Code.SUPERSEDED, evict=True)
        case Verdict.UNDETERMINED:
            return Refused(code=Code.INSTANCE_NOT_READY)
        case Verdict.CURRENT if bearer in (Bearer.ABSENT, Bearer.NOT_VALID):
            return Refused(code=Code.REREGISTER_REQUIRED)
        case Verdict.CURRENT:
            return MayUse()
        case _:
            assert_never(verdict)


class Right(StrEnum):
    """What people and programs may want of a workspace, beside being its box."""

    READ = "read"
    """Its record, its audit trail, its delegations; the addresses of others."""
    DELEGATE = "delegate"
    """Hand work to others in its name."""
    MANAGE_TOKENS = "manage_tokens"
    """An API token may not: what it leaked to could make itself another one before it is revoked."""


def decide_access(
    right: Right, *, operator: bool, api_token: bool, use: MayUse | Refused, bearer: Bearer
) -> MayUse | Refused:
    """Whether the caller has the right: an operator, the current box, or the holder of an API token.

    Only operators learn which workspaces exist.
    """
    if operator:
        return MayUse()
    if api_token:
        return Refused(code=Code.FORBIDDEN) if right is Right.MANAGE_TOKENS else MayUse()
    if isinstance(use, Refused) and use.code is Code.WORKSPACE_UNKNOWN:
        return _unproven(bearer, action=Action.REREGISTER)  # the same words as for one that exists
    return use


def decide_report(
    standing: Standing | None, use: MayUse | Refused, *, peer: Peer, terminal: bool, bearer: Bearer
) -> MayUse | Refused:
    """Whether a runtime may say how far a delegation is.

    Runtimes in the field say it without a bearer: that they call from the recorded address is enough for
    every word but a terminal one.
    """
    if isinstance(use, Refused) and use.code is Code.WORKSPACE_UNKNOWN:
        return _unproven(bearer, action=Action.REREGISTER)
    told_over = isinstance(use, Refused) and use.code is Code.SUPERSEDED
    if not terminal and not told_over and peer is Peer.MATCHES and standing is not None:
        return _closed(standing) or MayUse()
    return use


def _closed(standing: Standing) -> Refused | None:
    if standing.is_deleted:
        return Refused(code=Code.WORKSPACE_REMOVED)
    if standing.intent is Intent.STOP:
        return Refused(code=Code.WORKSPACE_STOPPED)
    return None


def _unproven(bearer: Bearer, *, action: Action | None = None, alert: bool = False) -> Refused:
    # Nothing but the alert, which the caller never sees, may depend on the record.
    code = Code.TOKEN_MISSING if bearer is Bearer.ABSENT else Code.TOKEN_INVALID
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
    if unused_for < QUIET:
        return Refused(code=Code.TOKEN_IN_USE, retry_after=ceil((QUIET - unused_for).total_seconds()))
    if live.successors >= SUCCESSORS_LIMIT:
        return Refused(code=Code.MINT_LIMITED, alert=True)
    return Accepted(grant=Grant.MINT, retire_active=True)


def _successor(live: LiveTokens) -> Accepted:
    if live.pending and live.replayable:
        return Accepted(grant=Grant.REPLAY)
    # An operator revoked the pending one, its key is gone, or there never was one.
    return Accepted(
        grant=Grant.MINT, revoke_pending=live.pending, retire_active=live.active_unused_for is not None
    )
