"""The register decision table, row by row, and the rules of a token's use."""

import itertools
from datetime import timedelta

import pytest

from register_api.auth.identity import CallerIdentity, RecordedWorkspace
from register_api.auth.rules import (
    ABANDONED_AFTER,
    SUCCESSORS_LIMIT,
    Accepted,
    Allowed,
    Bearer,
    Grant,
    LiveTokens,
    Refused,
    decide_register,
    decide_use,
)
from register_api.http.error_codes import ERROR_SPECS, Action, ErrorCode
from workflows.workspace.state import Intent

RUNNING = RecordedWorkspace(intent=Intent.RUN, deleted=False, newest=3, current=3)
STOPPED = RecordedWorkspace(intent=Intent.STOP, deleted=False, newest=3, current=None)
DELETING = RecordedWorkspace(intent=Intent.DELETE, deleted=False, newest=3, current=None)
DELETED = RecordedWorkspace(intent=Intent.DELETE, deleted=True, newest=3, current=None)

NONE_LIVE = LiveTokens()
PENDING = LiveTokens(pending=True)
IN_USE = LiveTokens(active_unused_for=timedelta(seconds=20))
QUIET_ONE = LiveTokens(active_unused_for=ABANDONED_AFTER)
RETIRING_AND_PENDING = LiveTokens(retiring=True, pending=True)
LIVE = (NONE_LIVE, PENDING, IN_USE, QUIET_ONE, RETIRING_AND_PENDING)
WITHOUT_TOKEN = (Bearer.ABSENT, Bearer.NOT_VALID)


def refused(decision: Accepted | Allowed | Refused) -> ErrorCode:
    assert isinstance(decision, Refused)
    return decision.code


@pytest.mark.parametrize("bearer", Bearer)
@pytest.mark.parametrize("identity", CallerIdentity)
def test_an_unknown_workspace_is_a_404_whoever_asks(bearer: Bearer, identity: CallerIdentity) -> None:
    assert (
        refused(decide_register(None, identity, bearer=bearer, live=NONE_LIVE)) is ErrorCode.WORKSPACE_UNKNOWN
    )
    assert refused(decide_use(None, identity, bearer=bearer)) is ErrorCode.WORKSPACE_UNKNOWN


@pytest.mark.parametrize(
    ("workspace", "code"),
    [
        (STOPPED, ErrorCode.WORKSPACE_STOPPED),
        (DELETING, ErrorCode.WORKSPACE_REMOVED),
        (DELETED, ErrorCode.WORKSPACE_REMOVED),
    ],
)
@pytest.mark.parametrize("bearer", Bearer)
@pytest.mark.parametrize("identity", sorted(set(CallerIdentity) - {CallerIdentity.UNPROVEN}))
def test_a_workspace_that_is_over_says_so_to_whoever_proves_something(
    workspace: RecordedWorkspace, code: ErrorCode, bearer: Bearer, identity: CallerIdentity
) -> None:
    assert refused(decide_register(workspace, identity, bearer=bearer, live=NONE_LIVE)) is code
    assert refused(decide_use(workspace, identity, bearer=bearer)) is code
    assert (ERROR_SPECS[code].status, ERROR_SPECS[code].action) == (410, Action.SHUTDOWN)


@pytest.mark.parametrize("bearer", Bearer)
@pytest.mark.parametrize("live", LIVE)
def test_a_superseded_box_is_told_to_shut_down_even_with_a_live_token(
    bearer: Bearer, live: LiveTokens
) -> None:
    decision = decide_register(RUNNING, CallerIdentity.SUPERSEDED, bearer=bearer, live=live)
    assert decision == Refused(code=ErrorCode.SUPERSEDED, alert=True, evict=True)
    assert refused(decide_use(RUNNING, CallerIdentity.SUPERSEDED, bearer=bearer)) is ErrorCode.SUPERSEDED
    assert (ERROR_SPECS[ErrorCode.SUPERSEDED].status, ERROR_SPECS[ErrorCode.SUPERSEDED].action) == (
        410,
        Action.SHUTDOWN,
    )


@pytest.mark.parametrize("live", LIVE)
def test_an_active_bearer_is_registered_without_a_token(live: LiveTokens) -> None:
    assert decide_register(RUNNING, CallerIdentity.CURRENT, bearer=Bearer.ACTIVE, live=live) == Accepted()


@pytest.mark.parametrize("live", LIVE)
def test_a_pending_bearer_is_confirmed(live: LiveTokens) -> None:
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=Bearer.PENDING, live=live)
    assert decision == Accepted(confirm=True)


def test_a_retiring_bearer_gets_its_successor() -> None:
    decision = decide_register(
        RUNNING, CallerIdentity.CURRENT, bearer=Bearer.RETIRING, live=LiveTokens(retiring=True, pending=True)
    )
    assert decision == Accepted(grant=Grant.REISSUE)


@pytest.mark.parametrize("bearer", [Bearer.RETIRING, *WITHOUT_TOKEN])
def test_a_successor_that_was_revoked_is_minted_anew(bearer: Bearer) -> None:
    live = LiveTokens(retiring=True)
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Accepted(grant=Grant.MINT)


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
@pytest.mark.parametrize("live", LIVE)
def test_a_box_whose_launch_is_not_recorded_is_asked_to_try_again(bearer: Bearer, live: LiveTokens) -> None:
    code = refused(decide_register(RUNNING, CallerIdentity.UNDETERMINED, bearer=bearer, live=live))
    assert code is ErrorCode.INSTANCE_NOT_READY
    assert ERROR_SPECS[code].status == 503


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
def test_the_gate_is_open_while_no_token_is_live(bearer: Bearer) -> None:
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=NONE_LIVE)
    assert decision == Accepted(grant=Grant.MINT)


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
@pytest.mark.parametrize("live", [PENDING, RETIRING_AND_PENDING])
def test_a_pending_token_is_the_same_until_it_is_used(bearer: Bearer, live: LiveTokens) -> None:
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Accepted(grant=Grant.REISSUE)


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
def test_a_pending_token_whose_key_is_gone_is_replaced(bearer: Bearer) -> None:
    live = LiveTokens(pending=True, reissuable=False)
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Accepted(grant=Grant.MINT, revoke_pending=True)


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
@pytest.mark.parametrize(("unused_for", "retry_after"), [(0.0, 60), (20.0, 40), (59.5, 1)])
def test_an_active_token_in_use_is_not_replaced(bearer: Bearer, unused_for: float, retry_after: int) -> None:
    live = LiveTokens(active_unused_for=timedelta(seconds=unused_for))
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Refused(code=ErrorCode.TOKEN_IN_USE, retry_after=retry_after)
    assert ERROR_SPECS[ErrorCode.TOKEN_IN_USE].status == 503


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
@pytest.mark.parametrize("successors", range(SUCCESSORS_LIMIT))
def test_a_quiet_active_token_is_retired_for_a_new_one(bearer: Bearer, successors: int) -> None:
    live = LiveTokens(active_unused_for=ABANDONED_AFTER, successors=successors)
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Accepted(grant=Grant.MINT, retire_active=True)


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
def test_the_sixth_successor_in_ten_minutes_is_refused_with_an_alert(bearer: Bearer) -> None:
    live = LiveTokens(active_unused_for=ABANDONED_AFTER, successors=SUCCESSORS_LIMIT)
    decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
    assert decision == Refused(code=ErrorCode.MINT_LIMITED, alert=True)
    assert ERROR_SPECS[ErrorCode.MINT_LIMITED].status == 503


@pytest.mark.parametrize("workspace", [RUNNING, STOPPED, DELETED])
@pytest.mark.parametrize("live", LIVE)
@pytest.mark.parametrize(
    ("bearer", "code"),
    [(Bearer.ABSENT, ErrorCode.TOKEN_MISSING), (Bearer.NOT_VALID, ErrorCode.TOKEN_INVALID)],
)
def test_what_an_unproven_caller_is_told_depends_on_nothing(
    workspace: RecordedWorkspace, live: LiveTokens, bearer: Bearer, code: ErrorCode
) -> None:
    decision = decide_register(workspace, CallerIdentity.UNPROVEN, bearer=bearer, live=live)
    # The alert is not told: it is for those whose box cannot get in.
    assert decision == Refused(code=code, alert=live == NONE_LIVE and workspace == RUNNING)
    assert ERROR_SPECS[code].status == 401


def test_no_combination_mints_without_proof_of_the_current_generation() -> None:
    for bearer, identity, live in itertools.product(
        Bearer, set(CallerIdentity) - {CallerIdentity.CURRENT}, LIVE
    ):
        assert isinstance(decide_register(RUNNING, identity, bearer=bearer, live=live), Refused)


@pytest.mark.parametrize("bearer", sorted(set(Bearer) - set(WITHOUT_TOKEN)))
def test_a_live_token_of_the_current_generation_may_be_used(bearer: Bearer) -> None:
    assert decide_use(RUNNING, CallerIdentity.CURRENT, bearer=bearer) == Allowed()


@pytest.mark.parametrize("bearer", WITHOUT_TOKEN)
def test_proof_without_a_token_has_to_register_again(bearer: Bearer) -> None:
    code = refused(decide_use(RUNNING, CallerIdentity.CURRENT, bearer=bearer))
    assert code is ErrorCode.REREGISTER_REQUIRED
    assert (ERROR_SPECS[code].status, ERROR_SPECS[code].action) == (401, Action.REREGISTER)


def test_an_unproven_beat_is_a_401() -> None:
    decision = decide_use(RUNNING, CallerIdentity.UNPROVEN, bearer=Bearer.ABSENT)
    assert decision == Refused(code=ErrorCode.TOKEN_MISSING, action=Action.REREGISTER)


def test_only_answers_that_may_become_better_carry_a_time_to_retry_after() -> None:
    for code, answer in ERROR_SPECS.items():
        assert (answer.retry_after is not None) == (answer.action is Action.RETRY), code
