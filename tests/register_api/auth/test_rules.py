"""The decisions for a current caller, row by row; `test_rules_space` covers the other identities.

Exact results matter here: which token the response carries, and what happens to the others.
"""

from datetime import timedelta

import pytest

from register_api.auth.identity import CallerIdentity
from register_api.auth.rules import (
    ABANDONED_AFTER,
    SUCCESSORS_LIMIT,
    Accepted,
    Bearer,
    Grant,
    LiveTokens,
    Refused,
    decide_register,
)
from register_api.http.error_codes import ERROR_SPECS, Action, ErrorCode
from tests.register_api.auth.space import RUNNING, WITHOUT_TOKEN

PENDING = LiveTokens(pending=True)
LOST_KEY = LiveTokens(pending=True, reissuable=False)
LOST_KEY_AND_ACTIVE = LiveTokens(pending=True, reissuable=False, active_unused_for=timedelta(0))
QUIET = LiveTokens(active_unused_for=ABANDONED_AFTER)
NO_SUCCESSOR_LEFT = LiveTokens(active_unused_for=ABANDONED_AFTER, successors=SUCCESSORS_LIMIT)
LAST_SUCCESSOR = LiveTokens(active_unused_for=ABANDONED_AFTER, successors=SUCCESSORS_LIMIT - 1)


def unused_for(seconds: float) -> LiveTokens:
    return LiveTokens(active_unused_for=timedelta(seconds=seconds))


WITHOUT_TOKEN_ROWS: list[tuple[LiveTokens, Accepted | Refused]] = [
    (LiveTokens(), Accepted(grant=Grant.MINT)),
    (LiveTokens(retiring=True), Accepted(grant=Grant.MINT)),
    (PENDING, Accepted(grant=Grant.REISSUE)),
    (LiveTokens(pending=True, retiring=True), Accepted(grant=Grant.REISSUE)),
    (LOST_KEY, Accepted(grant=Grant.MINT, revoke_pending=True)),
    (LOST_KEY_AND_ACTIVE, Accepted(grant=Grant.MINT, revoke_pending=True, retire_active=True)),
    (unused_for(0), Refused(code=ErrorCode.TOKEN_IN_USE, retry_after=60)),
    (unused_for(20), Refused(code=ErrorCode.TOKEN_IN_USE, retry_after=40)),
    (unused_for(59.5), Refused(code=ErrorCode.TOKEN_IN_USE, retry_after=1)),
    (QUIET, Accepted(grant=Grant.MINT, retire_active=True)),
    (LAST_SUCCESSOR, Accepted(grant=Grant.MINT, retire_active=True)),
    (NO_SUCCESSOR_LEFT, Refused(code=ErrorCode.MINT_LIMITED, alert=True)),
]
ROWS = [(bearer, *row) for bearer in WITHOUT_TOKEN for row in WITHOUT_TOKEN_ROWS] + [
    (Bearer.ACTIVE, unused_for(0), Accepted()),
    (Bearer.PENDING, PENDING, Accepted(confirm=True)),
    (Bearer.PENDING, LiveTokens(pending=True, retiring=True), Accepted(confirm=True)),
    (Bearer.RETIRING, LiveTokens(pending=True, retiring=True), Accepted(grant=Grant.REISSUE)),
    (Bearer.RETIRING, LiveTokens(retiring=True), Accepted(grant=Grant.MINT)),
]


@pytest.mark.parametrize(("bearer", "live", "decision"), ROWS)
def test_a_register_call_of_the_current_box(
    bearer: Bearer, live: LiveTokens, decision: Accepted | Refused
) -> None:
    assert decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live) == decision


def test_only_codes_with_the_action_retry_have_a_retry_after() -> None:
    for code, spec in ERROR_SPECS.items():
        assert (spec.retry_after is not None) == (spec.action is Action.RETRY), code
