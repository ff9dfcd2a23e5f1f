"""What needs a live token, over its whole input space: beats, reading, managing tokens (I4 to I7).

None of these decisions can give a token: their type has no room for one.
"""

import itertools
from dataclasses import dataclass

from register_api.auth.identity import CallerIdentity, Peer, RecordedWorkspace
from register_api.auth.rules import (
    Allowed,
    Bearer,
    Permission,
    Refused,
    decide_access,
    decide_heartbeat,
    decide_use,
)
from register_api.http.error_codes import ERROR_SPECS, Action, ErrorCode
from tests.register_api.auth.space import STANDINGS, WITHOUT_TOKEN, Told, is_open, told

BEATS = list(itertools.product(STANDINGS, CallerIdentity, Bearer, Peer, (False, True)))


def test_a_beat_counts_with_a_live_token_of_the_current_generation_only_and_grants_nothing() -> None:
    assert len(BEATS) == 600
    counted = 0
    for workspace, identity, bearer, peer, full in BEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        assert isinstance(decision, Allowed | Refused)
        may = is_open(workspace) and identity is CallerIdentity.CURRENT and bearer not in WITHOUT_TOKEN
        assert isinstance(decision, Allowed) == may, (workspace, identity, bearer, decision)
        counted += may
    assert counted == 3 * 6


def test_a_beat_of_the_current_box_without_a_token_makes_it_register_again() -> None:
    for workspace, identity, bearer, peer, full in BEATS:
        if is_open(workspace) and identity is CallerIdentity.CURRENT and bearer in WITHOUT_TOKEN:
            decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
            assert isinstance(decision, Refused)
            assert (decision.code, told(decision)[1]) == (ErrorCode.REREGISTER_REQUIRED, Action.REREGISTER)


def test_a_beat_of_a_superseded_box_tells_it_to_shut_down_and_ends_it_and_no_other_does() -> None:
    for workspace, identity, bearer, peer, full in BEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        superseded = identity is CallerIdentity.SUPERSEDED and is_open(workspace)
        assert superseded == (isinstance(decision, Refused) and decision.evict)
        if isinstance(decision, Refused) and superseded:
            assert (decision.code, told(decision)[1]) == (ErrorCode.SUPERSEDED, Action.SHUTDOWN)


def test_what_an_unproven_beat_is_told_depends_on_nothing_but_whether_a_bearer_came() -> None:
    heard: dict[bool, set[Told]] = {True: set(), False: set()}
    for workspace, identity, bearer, peer, full in BEATS:
        if identity is CallerIdentity.UNPROVEN and workspace is not None:
            decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
            assert isinstance(decision, Refused)
            heard[bearer is Bearer.ABSENT].add(told(decision))
    [missing], [invalid] = heard[True], heard[False]
    assert (missing[0].status, missing[1]) == (invalid[0].status, invalid[1]) == (401, Action.REREGISTER)


def test_a_strike_is_a_full_refused_beat_of_a_box_that_is_meant_to_run() -> None:
    for workspace, identity, bearer, peer, full in BEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        # From the box's own address it is that box, whatever it lost; a proven older one is another (I6).
        at_its_address = peer is Peer.MATCHES and identity is not CallerIdentity.SUPERSEDED
        is_the_box = identity is CallerIdentity.CURRENT or at_its_address
        expected = isinstance(decision, Refused) and full and is_the_box and is_open(workspace)
        assert (isinstance(decision, Refused) and decision.count_unauthenticated) == expected


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One point of the space of those who want to read or to manage."""

    permission: Permission
    operator: bool
    api_token: bool
    workspace: RecordedWorkspace | None
    identity: CallerIdentity
    bearer: Bearer

    @property
    def use(self) -> Allowed | Refused:
        return decide_use(self.workspace, self.identity, bearer=self.bearer)

    def decide(self) -> Allowed | Refused:
        return decide_access(
            self.permission,
            operator=self.operator,
            api_token=self.api_token,
            use=self.use,
            bearer=self.bearer,
        )


def asks() -> list[Ask]:
    """All but what cannot be: a bearer is one thing only, and none is of a workspace that is unknown."""
    every = (
        Ask(
            permission=permission,
            operator=operator,
            api_token=api_token,
            workspace=workspace,
            identity=identity,
            bearer=bearer,
        )
        for permission, operator, api_token, workspace, identity, bearer in itertools.product(
            Permission, (False, True), (False, True), STANDINGS, CallerIdentity, Bearer
        )
    )
    return [
        ask
        for ask in every
        if not (ask.operator and ask.api_token)
        and not ((ask.operator or ask.api_token) and ask.bearer is not Bearer.NOT_VALID)
        and not (ask.workspace is None and (ask.api_token or ask.bearer not in WITHOUT_TOKEN))
        and not (ask.workspace is None and ask.identity is not CallerIdentity.UNPROVEN)
    ]


def test_an_operator_may_everything_an_api_token_all_but_manage_tokens_and_a_box_as_much_as_it_may_use() -> (
    None
):
    # Boxes and strangers, one of them of an unknown workspace; operators; API tokens.
    assert len(asks()) == 3 * ((4 * 4 * 5 + 2) + (4 * 4 + 1) + 4 * 4)
    for ask in asks():
        decision = ask.decide()
        is_box = (
            is_open(ask.workspace)
            and ask.identity is CallerIdentity.CURRENT
            and ask.bearer not in WITHOUT_TOKEN
        )
        allowed = ask.operator or is_box or (ask.api_token and ask.permission is not Permission.MANAGE_TOKENS)
        assert isinstance(decision, Allowed) == allowed, (ask, decision)
        if ask.api_token and ask.permission is Permission.MANAGE_TOKENS:
            assert decision == Refused(code=ErrorCode.FORBIDDEN), ask


def test_only_operators_learn_which_workspaces_exist() -> None:
    strangers = [
        ask
        for ask in asks()
        if not ask.operator and not ask.api_token and ask.identity is CallerIdentity.UNPROVEN
    ]
    heard: dict[Bearer, set[Allowed | Refused]] = {bearer: set() for bearer in WITHOUT_TOKEN}
    for ask in strangers:
        if ask.bearer in WITHOUT_TOKEN:
            heard[ask.bearer].add(ask.decide())
    assert {ask.workspace for ask in strangers} == set(STANDINGS)
    for bearer, decisions in heard.items():
        [decision] = decisions
        assert isinstance(decision, Refused), bearer
        assert ERROR_SPECS[decision.code].status == 401, bearer


def test_a_refused_box_is_refused_in_the_words_of_its_beats() -> None:
    for ask in asks():
        if ask.workspace is not None and not ask.operator and not ask.api_token:
            assert ask.decide() == ask.use, ask
