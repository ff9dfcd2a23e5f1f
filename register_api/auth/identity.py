"""Who a caller is, decided from its evidence, the record and the bootstrap policy. No I/O, no clock."""

from dataclasses import dataclass
from enum import StrEnum

from register_api.http.config import BootstrapPolicy
from workflows.workspace.enums import Intent


class Peer(StrEnum):
    """How the caller's address compares with the record."""

    MATCHES = "matches"
    """It is the address recorded for the current generation's instance."""
    DIFFERS = "differs"
    """It is another address, or there is no current generation."""
    UNRECORDED = "unrecorded"
    """The current generation has no address on record yet."""


class CallerIdentity(StrEnum):
    """Who the caller is, as far as its evidence shows."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNDETERMINED = "undetermined"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The verified parts of a call's credentials."""

    secrets: tuple[int, ...] = ()
    """Generations of the genuine bootstrap secrets."""
    token: int | None = None
    """Generation of a genuine instance token, unless it was revoked within its own generation."""
    peer: Peer = Peer.DIFFERS


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWorkspace:
    """The part of the workspace record that decides who may register."""

    intent: Intent
    deleted: bool
    newest: int
    current: int | None

    @property
    def is_deleted(self) -> bool:
        """Whether the workspace is deleted or being deleted; callers see no difference."""
        return self.deleted or self.intent is Intent.DELETE


def decide_identity(
    evidence: Evidence, workspace: RecordedWorkspace, policy: BootstrapPolicy
) -> CallerIdentity:
    """Who the caller is.

    The bootstrap secret came with the box, and the address is the instance's own. A token file can be
    inherited from an older box, or shared with a newer one. So secret and address outweigh a token. Of two
    secrets the older one counts: refusing the current box is better than accepting a superseded one (I6).
    """
    if evidence.secrets:
        return _identify_by_secret(min(evidence.secrets), evidence, workspace, policy)
    by_address = policy is BootstrapPolicy.ADDRESS and workspace.current is not None
    if by_address and evidence.peer is Peer.MATCHES:
        return CallerIdentity.CURRENT
    if workspace.current is not None and evidence.token == workspace.current:
        return CallerIdentity.CURRENT
    if by_address and evidence.peer is Peer.UNRECORDED:
        # It may be the new box, without a token or with the old box's token file. Both 401 and 410 would be
        # final to it.
        return CallerIdentity.UNDETERMINED
    if evidence.token is not None:
        return _identify_other_generation(evidence.token, workspace)
    return CallerIdentity.UNPROVEN


def _identify_by_secret(
    generation: int, evidence: Evidence, workspace: RecordedWorkspace, policy: BootstrapPolicy
) -> CallerIdentity:
    if generation != workspace.current:
        return _identify_other_generation(generation, workspace)
    if (
        policy is not BootstrapPolicy.BOTH
        or evidence.peer is Peer.MATCHES
        or evidence.token == workspace.current
    ):
        return CallerIdentity.CURRENT
    return CallerIdentity.UNDETERMINED if evidence.peer is Peer.UNRECORDED else CallerIdentity.UNPROVEN


def _identify_other_generation(generation: int, workspace: RecordedWorkspace) -> CallerIdentity:
    # A genuine credential of a newer generation: its launch may not be recorded yet.
    return CallerIdentity.SUPERSEDED if generation <= workspace.newest else CallerIdentity.UNDETERMINED
