"""Decisions that need a live token, over their whole input space: heartbeat, read, manage tokens (I4 to I7).

None of these decisions can grant a token: their type has no member for one.
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
from tests.register_api.auth.space import WITHOUT_TOKEN, WORKSPACES, VisibleRefusal, is_open, visible

UNRECORDED = (CallerIdentity.UNPROVEN, CallerIdentity.UNDETERMINED)
"""The identities that a caller of an unknown workspace can have."""

HEARTBEATS = list(itertools.product(WORKSPACES, CallerIdentity, Bearer, Peer, (False, True)))


def test_a_heartbeat_counts_with_a_live_token_of_the_current_generation_only_and_grants_nothing() -> None:
    assert len(HEARTBEATS) == 600
    counted = 0
    for workspace, identity, bearer, peer, full in HEARTBEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        assert isinstance(decision, Allowed | Refused)
        may = is_open(workspace) and identity is CallerIdentity.CURRENT and bearer not in WITHOUT_TOKEN
        assert isinstance(decision, Allowed) == may, (workspace, identity, bearer, decision)
        counted += may
    assert counted == 3 * 6


def test_a_heartbeat_of_the_current_box_without_a_token_makes_it_register_again() -> None:
    for workspace, identity, bearer, peer, full in HEARTBEATS:
        if is_open(workspace) and identity is CallerIdentity.CURRENT and bearer in WITHOUT_TOKEN:
            decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
            assert isinstance(decision, Refused)
            assert (decision.code, visible(decision)[1]) == (ErrorCode.REREGISTER_REQUIRED, Action.REREGISTER)


def test_a_heartbeat_of_a_superseded_box_shuts_it_down_and_ends_it_and_no_other_does() -> None:
    for workspace, identity, bearer, peer, full in HEARTBEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        superseded = identity is CallerIdentity.SUPERSEDED and is_open(workspace)
        assert superseded == (isinstance(decision, Refused) and decision.evict)
        if isinstance(decision, Refused) and superseded:
            assert (decision.code, visible(decision)[1]) == (ErrorCode.SUPERSEDED, Action.SHUTDOWN)


def test_what_an_unproven_heartbeat_gets_depends_on_nothing_but_whether_a_bearer_came() -> None:
    seen: dict[bool, set[VisibleRefusal]] = {True: set(), False: set()}
    for workspace, identity, bearer, peer, full in HEARTBEATS:
        if identity is CallerIdentity.UNPROVEN:
            decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
            assert isinstance(decision, Refused)
            seen[bearer is Bearer.ABSENT].add(visible(decision))
    [missing], [invalid] = seen[True], seen[False]
    assert (missing[0].status, missing[1]) == (invalid[0].status, invalid[1]) == (401, Action.REREGISTER)


def test_an_unauthenticated_heartbeat_is_a_full_refused_heartbeat_of_a_box_that_is_meant_to_run() -> None:
    for workspace, identity, bearer, peer, full in HEARTBEATS:
        decision = decide_heartbeat(workspace, identity, bearer=bearer, peer=peer, full=full)
        # A call from the box's address is that box's, unless it proves an older generation (I6).
        at_its_address = peer is Peer.MATCHES and identity is not CallerIdentity.SUPERSEDED
        is_the_box = identity is CallerIdentity.CURRENT or at_its_address
        expected = isinstance(decision, Refused) and full and is_the_box and is_open(workspace)
        assert (isinstance(decision, Refused) and decision.count_unauthenticated) == expected


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One point of the input space of reading and managing."""

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
        )


def access_requests() -> list[AccessRequest]:
    """All possible points: a bearer is of one kind only, and an unknown workspace has no tokens."""
    every = (
        AccessRequest(
            permission=permission,
            operator=operator,
            api_token=api_token,
            workspace=workspace,
            identity=identity,
            bearer=bearer,
        )
        for permission, operator, api_token, workspace, identity, bearer in itertools.product(
            Permission, (False, True), (False, True), WORKSPACES, CallerIdentity, Bearer
        )
    )
    return [
        request
        for request in every
        if not (request.operator and request.api_token)
        and not ((request.operator or request.api_token) and request.bearer is not Bearer.NOT_VALID)
        and not (request.workspace is None and (request.api_token or request.bearer not in WITHOUT_TOKEN))
        and not (request.workspace is None and request.identity not in UNRECORDED)
    ]


def test_an_operator_may_everything_an_api_token_all_but_manage_tokens_and_a_box_as_much_as_it_may_use() -> (
    None
):
    # Boxes and unproven callers, some of them for an unknown workspace; operators; API tokens.
    assert len(access_requests()) == 3 * ((4 * 4 * 5 + 4) + (4 * 4 + 2) + 4 * 4)
    for request in access_requests():
        decision = request.decide()
        is_box = (
            is_open(request.workspace)
            and request.identity is CallerIdentity.CURRENT
            and request.bearer not in WITHOUT_TOKEN
        )
        allowed = (
            request.operator
            or is_box
            or (request.api_token and request.permission is not Permission.MANAGE_TOKENS)
        )
        assert isinstance(decision, Allowed) == allowed, (request, decision)
        if request.api_token and request.permission is Permission.MANAGE_TOKENS:
            assert decision == Refused(code=ErrorCode.FORBIDDEN), request


def test_an_unproven_caller_does_not_learn_which_workspaces_exist() -> None:
    unknown_callers = [
        request
        for request in access_requests()
        if not request.operator and not request.api_token and request.identity is CallerIdentity.UNPROVEN
    ]
    seen: dict[Bearer, set[Allowed | Refused]] = {bearer: set() for bearer in WITHOUT_TOKEN}
    for request in unknown_callers:
        if request.bearer in WITHOUT_TOKEN:
            seen[request.bearer].add(request.decide())
    assert {request.workspace for request in unknown_callers} == set(WORKSPACES)
    for bearer, decisions in seen.items():
        [decision] = decisions
        assert isinstance(decision, Refused), bearer
        assert ERROR_SPECS[decision.code].status == 401, bearer


def test_a_refused_box_gets_the_same_refusal_as_its_heartbeats() -> None:
    for request in access_requests():
        if not request.operator and not request.api_token:
            assert request.decide() == request.use, request
