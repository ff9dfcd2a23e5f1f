"""Who a caller is, as far as its evidence and the bootstrap policy tell: a function of values.

No I/O and no clock: the standard library, and value types of other pure modules.
"""

from dataclasses import dataclass
from enum import StrEnum

from workflows.workspace.state import Intent


class BootstrapPolicy(StrEnum):
    """How a box that has no token proves itself (`BOOTSTRAP_POLICY`)."""

    SECRET = "secret"  # noqa: S105 - a word, no credential
    """By the bootstrap secret of its user data."""
    ADDRESS = "address"
    """By that secret, or by calling from the recorded address: for images whose user data is fixed."""
    BOTH = "both"
    """By that secret, from the recorded address."""


class Peer(StrEnum):
    """What the address that a call comes from says."""

    MATCHES = "matches"
    """It is the one recorded for the current generation's instance."""
    DIFFERS = "differs"
    """It is not, or there is no current generation."""
    UNRECORDED = "unrecorded"
    """The current generation has no address on record yet, so nobody can say."""


class CallerIdentity(StrEnum):
    """Who the caller is, as far as evidence tells."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    UNDETERMINED = "undetermined"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What came with a call and was verified."""

    secrets: tuple[int, ...] = ()
    """The generations that genuine bootstrap secrets name."""
    token: int | None = None
    """The generation of a genuine instance token that was not revoked within its own generation."""
    peer: Peer = Peer.DIFFERS


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedWorkspace:
    """What the record says about who may register."""

    intent: Intent
    deleted: bool
    newest: int
    current: int | None

    @property
    def is_deleted(self) -> bool:
        """Whether it is deleted, or being deleted: for callers that is the same."""
        return self.deleted or self.intent is Intent.DELETE


def decide_identity(
    evidence: Evidence, workspace: RecordedWorkspace, policy: BootstrapPolicy
) -> CallerIdentity:
    """Who the caller is.

    The bootstrap secret came with the box, and the address is the instance's own; a token file can be
    inherited from an older box, or shared with a newer one. So secret and address outweigh a token, and of
    two secrets the older one names the box: I6 is worth more than a box that presents a stranger's secret.
    """
    if evidence.secrets:
        return _identify_by_secret(min(evidence.secrets), evidence, workspace, policy)
    by_address = policy is BootstrapPolicy.ADDRESS and workspace.current is not None
    if by_address and evidence.peer is Peer.MATCHES:
        return CallerIdentity.CURRENT
    if workspace.current is not None and evidence.token == workspace.current:
        return CallerIdentity.CURRENT
    if by_address and evidence.peer is Peer.UNRECORDED:
        # It may be the new box, with the stale file of the old one or with nothing: a 401 or 410 would be
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
    # Genuine, but of a generation that is not on record: it may be about to be.
    return CallerIdentity.SUPERSEDED if generation <= workspace.newest else CallerIdentity.UNDETERMINED
