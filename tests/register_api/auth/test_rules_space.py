"""The register decision over its whole input space, checked against the invariants I4 to I7.

A decision is applied to a model of a generation's token rows, as `Registrar` applies it to PostgreSQL's.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TypeAlias

import pytest

from register_api.auth.identity import CallerIdentity, RecordedWorkspace
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
from tests.register_api.auth.space import RUNNING, WITHOUT_TOKEN, WORKSPACES, VisibleRefusal, is_open, visible

INSTANT = timedelta(microseconds=1)
UNUSED_FOR = (
    None,
    timedelta(0),
    timedelta(seconds=20.5),
    ABANDONED_AFTER - INSTANT,
    ABANDONED_AFTER,
    10 * ABANDONED_AFTER,
)
SUCCESSORS = (0, SUCCESSORS_LIMIT - 1, SUCCESSORS_LIMIT)

Rows: TypeAlias = Mapping[str, Bearer]
"""The states of a generation's live tokens, by name; revoked ones are missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One point of the input space of register calls."""

    workspace: RecordedWorkspace | None
    identity: CallerIdentity
    bearer: Bearer
    live: LiveTokens

    def decide(self) -> Accepted | Refused:
        return decide_register(self.workspace, self.identity, bearer=self.bearer, live=self.live)

    @property
    def rows(self) -> dict[str, Bearer]:
        """The rows that `live` was read from, each named by its state."""
        states = {
            Bearer.PENDING: self.live.pending,
            Bearer.ACTIVE: self.live.active_unused_for is not None,
            Bearer.RETIRING: self.live.retiring,
        }
        return {state.value: state for state, exists in states.items() if exists}

    @property
    def held(self) -> str | None:
        """The live token that the box presents."""
        return None if self.bearer in WITHOUT_TOKEN else self.bearer.value


def calls() -> Iterator[Call]:
    """Every call that is possible for a record that satisfies I4.

    A bearer that is pending, active or retiring without such a row is impossible. Combinations that only
    `decide_identity` excludes are included (current without a current generation): a decision must not rely
    on it.
    """
    lives = [
        LiveTokens(
            pending=pending, reissuable=reissuable, active_unused_for=unused_for, retiring=retiring,
            successors=successors,
        )
        for pending, reissuable, unused_for, retiring, successors in itertools.product(
            (False, True), (False, True), UNUSED_FOR, (False, True), SUCCESSORS
        )
    ]  # fmt: skip
    for workspace, identity, bearer, live in itertools.product(WORKSPACES, CallerIdentity, Bearer, lives):
        call = Call(workspace=workspace, identity=identity, bearer=bearer, live=live)
        if call.held is None or call.held in call.rows:
            yield call


def applied(decision: Accepted, call: Call) -> tuple[Rows, str | None]:
    """The rows after the decision, in the order of `Registrar._apply`, and the box's token."""
    rows, held = call.rows, call.held
    if held is not None:
        if decision.confirm:
            rows = {held: rows[held]}
        if rows[held] is Bearer.PENDING:
            rows[held] = Bearer.ACTIVE
    if decision.revoke_pending:
        rows = {name: state for name, state in rows.items() if state is not Bearer.PENDING}
    if decision.retire_active:
        rows = {name: Bearer.RETIRING if state is Bearer.ACTIVE else state for name, state in rows.items()}
    match decision.grant:
        case Grant.NONE:
            return rows, held
        case Grant.REISSUE:
            assert call.live.reissuable
            [pending] = [name for name, state in rows.items() if state is Bearer.PENDING]
            return rows, pending
        case Grant.MINT:
            return {**rows, "minted": Bearer.PENDING}, "minted"


def test_the_space_is_whole() -> None:
    every = list(calls())
    assert len(every) == len(set(every)) == 11040
    seen = Counter(call.bearer for call in every)
    # 20 pairs of workspace and identity; of 144 records 72 have a pending token, 120 an active, 72 a
    # retiring.
    assert seen == {
        Bearer.ABSENT: 20 * 144,
        Bearer.NOT_VALID: 20 * 144,
        Bearer.PENDING: 20 * 72,
        Bearer.ACTIVE: 20 * 120,
        Bearer.RETIRING: 20 * 72,
    }


def test_i4_at_most_one_pending_and_one_active_token_after_any_decision() -> None:
    accepted = 0
    for call in calls():
        decision = call.decide()
        if isinstance(decision, Accepted):
            accepted += 1
            rows, _ = applied(decision, call)
            states = Counter(rows.values())
            assert states[Bearer.PENDING] <= 1, (call, decision)
            assert states[Bearer.ACTIVE] <= 1, (call, decision)
    # Per 144: with an active, pending, retiring bearer; twice, without one: pending, none active, quiet.
    assert accepted == (120 + 72 + 72) + 2 * (72 + 12 + 16)


def test_i4_tokens_are_given_and_changed_in_the_current_generation_only() -> None:
    for call in calls():
        if isinstance(call.decide(), Accepted):
            assert call.workspace is RUNNING, call
            assert call.identity is CallerIdentity.CURRENT, call


def test_i5_the_current_box_ends_up_with_a_live_token_or_has_to_retry() -> None:
    for call in calls():
        if call.workspace is RUNNING and call.identity is CallerIdentity.CURRENT:
            decision = call.decide()
            if isinstance(decision, Accepted):
                rows, held = applied(decision, call)
                assert held in rows, (call, decision)
            else:
                answer, action, retry_after = visible(decision)
                assert (answer.status, action) == (503, Action.RETRY), (call, decision)
                assert retry_after is not None, (call, decision)
                assert retry_after > 0, (call, decision)


def test_i5_the_holder_of_a_live_token_of_the_current_generation_is_never_refused() -> None:
    for call in calls():
        if call.workspace is RUNNING and call.identity is CallerIdentity.CURRENT and call.held is not None:
            assert isinstance(call.decide(), Accepted), call


def test_i5_who_has_to_retry_gets_in_once_the_time_has_passed() -> None:
    for call in calls():
        decision = call.decide()
        if (
            call.workspace is RUNNING
            and call.identity is CallerIdentity.CURRENT
            and isinstance(decision, Refused)
        ):
            assert call.live.active_unused_for is not None, call
            waited = timedelta(seconds=visible(decision)[2] or 0)
            quieter = replace(call.live, active_unused_for=call.live.active_unused_for + waited)
            again = replace(call, live=quieter).decide()
            # Counted tokens leave the window with time; then the call succeeds.
            assert isinstance(again, Accepted) or again.code is ErrorCode.MINT_LIMITED, (call, again)
            assert isinstance(replace(call, live=replace(quieter, successors=0)).decide(), Accepted), call


@pytest.mark.parametrize(("unused_for", "retry_after"), [(0, 60), (20, 40), (59.5, 1)])
def test_a_retry_answer_says_when_the_token_in_use_will_be_quiet(unused_for: float, retry_after: int) -> None:
    live = LiveTokens(active_unused_for=timedelta(seconds=unused_for))
    for bearer in WITHOUT_TOKEN:
        decision = decide_register(RUNNING, CallerIdentity.CURRENT, bearer=bearer, live=live)
        assert decision == Refused(code=ErrorCode.TOKEN_IN_USE, retry_after=retry_after)


def test_i5_a_lost_answer_costs_nothing_the_same_call_again_gets_the_same_token() -> None:
    for call in calls():
        decision = call.decide()
        if not isinstance(decision, Accepted) or decision.grant is Grant.NONE:
            continue
        rows, held = applied(decision, call)
        active = [name for name, state in rows.items() if state is Bearer.ACTIVE]
        again = replace(
            call,
            live=LiveTokens(
                pending=Bearer.PENDING in rows.values(),
                active_unused_for=call.live.active_unused_for if active else None,
                retiring=Bearer.RETIRING in rows.values(),
                successors=SUCCESSORS_LIMIT,
            ),
        )
        assert rows[held or ""] is Bearer.PENDING, (call, decision)
        assert again.decide() == Accepted(grant=Grant.REISSUE), (call, decision)


def test_an_active_token_in_use_is_not_taken_from_its_holder_while_no_successor_was_given() -> None:
    for call in calls():
        decision = call.decide()
        in_use = call.live.active_unused_for is not None and call.live.active_unused_for < ABANDONED_AFTER
        if in_use and not call.live.pending and call.bearer in WITHOUT_TOKEN:
            assert isinstance(decision, Refused), (call, decision)


def test_i6_a_superseded_box_is_shut_down_gets_nothing_and_is_ended() -> None:
    for call in calls():
        if call.identity is CallerIdentity.SUPERSEDED:
            decision = call.decide()
            assert isinstance(decision, Refused), (call, decision)
            answer, action, _ = visible(decision)
            if call.workspace is not None:
                assert (answer.status, action) == (410, Action.SHUTDOWN), (call, decision)
            if is_open(call.workspace):
                assert decision == Refused(code=ErrorCode.SUPERSEDED, alert=True, evict=True), call


def test_i6_no_other_box_is_terminated() -> None:
    for call in calls():
        decision = call.decide()
        evict = isinstance(decision, Refused) and decision.evict
        assert evict == (is_open(call.workspace) and call.identity is CallerIdentity.SUPERSEDED), (
            call,
            decision,
        )


def test_i7_an_unproven_caller_gets_nothing_changes_nothing_and_learns_nothing() -> None:
    seen_by_bearer: dict[bool, set[VisibleRefusal]] = {True: set(), False: set()}
    for call in calls():
        if call.identity is CallerIdentity.UNPROVEN:
            decision = call.decide()
            assert isinstance(decision, Refused), (call, decision)
            assert not decision.evict, (call, decision)
            assert not decision.count_unauthenticated, (call, decision)
            alert = is_open(call.workspace) and not call.rows
            assert decision.alert == alert, (call, decision)
            seen_by_bearer[call.bearer is Bearer.ABSENT].add(visible(decision))
    [missing], [invalid] = seen_by_bearer[True], seen_by_bearer[False]
    assert (missing[0].status, missing[0].error) == (401, "missing workspace auth token")
    assert (invalid[0].status, invalid[0].error) == (401, "invalid workspace auth token")


def test_a_box_that_may_be_the_right_one_never_gets_a_final_refusal() -> None:
    for call in calls():
        if is_open(call.workspace) and call.identity is CallerIdentity.UNDETERMINED:
            assert call.decide() == Refused(code=ErrorCode.INSTANCE_NOT_READY), call
    assert ERROR_SPECS[ErrorCode.INSTANCE_NOT_READY].action is Action.RETRY


def test_an_unknown_workspace_is_404_for_callers_with_a_valid_credential() -> None:
    for call in calls():
        if call.workspace is None and call.identity is not CallerIdentity.UNPROVEN:
            assert call.decide() == Refused(code=ErrorCode.WORKSPACE_UNKNOWN), call


def test_only_codes_with_the_action_retry_have_a_retry_after() -> None:
    for code, spec in ERROR_SPECS.items():
        assert (spec.retry_after is not None) == (spec.action is Action.RETRY), code
