"""Caller identity for every combination of evidence, policy and record."""

import itertools

import pytest

from register_api.auth.identity import (
    CallerIdentity,
    Evidence,
    Peer,
    RecordedWorkspace,
    decide_identity,
)
from register_api.http.config import BootstrapPolicy
from workflows.workspace.enums import Intent

RUNNING = RecordedWorkspace(intent=Intent.RUN, deleted=False, newest=3, current=3)
STOPPED = RecordedWorkspace(intent=Intent.STOP, deleted=False, newest=3, current=None)
WORKSPACES = (RUNNING, STOPPED)

SECRETS = ((), (1,), (2,), (3,), (4,), (2, 3), (3, 2), (3, 4), (3, 3))
TOKENS = (None, 1, 2, 3, 4)

CURRENT, SUPERSEDED = CallerIdentity.CURRENT, CallerIdentity.SUPERSEDED
UNDETERMINED, UNPROVEN = CallerIdentity.UNDETERMINED, CallerIdentity.UNPROVEN


@pytest.mark.parametrize(
    ("secrets", "token", "identity"),
    [
        ((), None, UNPROVEN),
        ((), 3, CURRENT),
        ((3,), None, CURRENT),
        ((), 2, SUPERSEDED),
        ((1,), None, SUPERSEDED),
        ((4,), None, UNDETERMINED),
        ((), 4, UNDETERMINED),
        # a new box inherited a stale file
        ((3,), 2, CURRENT),
        # an old box with the new box's token file, on a shared volume
        ((2,), 3, SUPERSEDED),
        ((3, 2), None, SUPERSEDED),
    ],
)
@pytest.mark.parametrize("peer", Peer)
def test_by_secret_the_address_says_nothing(
    secrets: tuple[int, ...], token: int | None, identity: CallerIdentity, peer: Peer
) -> None:
    evidence = Evidence(secrets=secrets, token=token, peer=peer)
    assert decide_identity(evidence, RUNNING, BootstrapPolicy.SECRET) is identity


@pytest.mark.parametrize(
    ("secrets", "token", "peer", "identity"),
    [
        # the current box's unmodified runtime, without a token or with a stale file
        ((), None, Peer.MATCHES, CURRENT),
        ((), 2, Peer.MATCHES, CURRENT),
        # the launch is not recorded yet, so it may be the current box
        ((), None, Peer.UNRECORDED, UNDETERMINED),
        ((), 2, Peer.UNRECORDED, UNDETERMINED),
        # another address
        ((), None, Peer.DIFFERS, UNPROVEN),
        ((), 2, Peer.DIFFERS, SUPERSEDED),
        # a token identifies its holder at any address
        ((), 3, Peer.DIFFERS, CURRENT),
        ((), 3, Peer.UNRECORDED, CURRENT),
        # the secret suffices as well, and an old one outweighs a reused address
        ((3,), None, Peer.DIFFERS, CURRENT),
        ((2,), None, Peer.MATCHES, SUPERSEDED),
        ((2,), None, Peer.UNRECORDED, SUPERSEDED),
    ],
)
def test_by_address_a_matching_peer_suffices(
    secrets: tuple[int, ...], token: int | None, peer: Peer, identity: CallerIdentity
) -> None:
    evidence = Evidence(secrets=secrets, token=token, peer=peer)
    assert decide_identity(evidence, RUNNING, BootstrapPolicy.ADDRESS) is identity


@pytest.mark.parametrize(
    ("secrets", "token", "peer", "identity"),
    [
        ((3,), None, Peer.MATCHES, CURRENT),
        ((3,), None, Peer.UNRECORDED, UNDETERMINED),
        ((3,), None, Peer.DIFFERS, UNPROVEN),
        ((), None, Peer.MATCHES, UNPROVEN),
        ((), None, Peer.UNRECORDED, UNPROVEN),
        ((3,), 3, Peer.DIFFERS, CURRENT),
        ((), 3, Peer.DIFFERS, CURRENT),
        ((2,), 3, Peer.MATCHES, SUPERSEDED),
        ((), 2, Peer.MATCHES, SUPERSEDED),
    ],
)
def test_by_both_neither_suffices(
    secrets: tuple[int, ...], token: int | None, peer: Peer, identity: CallerIdentity
) -> None:
    evidence = Evidence(secrets=secrets, token=token, peer=peer)
    assert decide_identity(evidence, RUNNING, BootstrapPolicy.BOTH) is identity


def everything() -> list[tuple[Evidence, RecordedWorkspace, BootstrapPolicy]]:
    return [
        (Evidence(secrets=secrets, token=token, peer=peer), workspace, policy)
        for secrets, token, peer, workspace, policy in itertools.product(
            SECRETS, TOKENS, Peer, WORKSPACES, BootstrapPolicy
        )
    ]


def test_no_caller_is_current_without_evidence_of_the_current_generation() -> None:
    for evidence, workspace, policy in everything():
        if decide_identity(evidence, workspace, policy) is CURRENT:
            assert workspace.current is not None
            by_address = policy is BootstrapPolicy.ADDRESS and evidence.peer is Peer.MATCHES
            assert by_address or workspace.current in (*evidence.secrets, evidence.token)


def test_a_secret_of_an_older_generation_is_never_outweighed() -> None:
    for evidence, workspace, policy in everything():
        if any(secret < 3 for secret in evidence.secrets):
            assert decide_identity(evidence, workspace, policy) is SUPERSEDED


def test_without_any_evidence_nothing_is_superseded() -> None:
    for evidence, workspace, policy in everything():
        if not evidence.secrets and evidence.token is None:
            assert decide_identity(evidence, workspace, policy) is not SUPERSEDED


def test_a_policy_changes_what_is_required_and_never_inverts_a_verdict() -> None:
    for evidence, workspace, _ in everything():
        identities = {decide_identity(evidence, workspace, policy) for policy in BootstrapPolicy}
        assert not {CURRENT, SUPERSEDED} <= identities or evidence.peer is Peer.MATCHES


def test_the_newest_generation_is_superseded_once_it_is_closed() -> None:
    for policy in BootstrapPolicy:
        assert decide_identity(Evidence(secrets=(3,)), STOPPED, policy) is SUPERSEDED
