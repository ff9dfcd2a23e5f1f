"""The invariant checks find planted violations, and accept a run without any."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from faults.invariants.evidence import (
    AwsCall,
    BoxTruth,
    Change,
    Event,
    Evidence,
    UnauthorizedAttempt,
    UnsettledWorkspace,
)
from faults.invariants.verdict import find_violations
from tests.faults.planted import (
    HONEST,
    NEW,
    OLD,
    SECRET,
    WELL,
    WORKSPACE,
    audited,
    change,
    deed,
    delegation,
    look,
    named,
    request,
    run,
    state,
    token,
)


def with_deeds(*aws_calls: AwsCall) -> Evidence:
    return replace(HONEST, aws_calls=tuple(sorted((*HONEST.aws_calls, *aws_calls), key=lambda it: it.at)))


def with_changes(*changes: Change) -> Evidence:
    return replace(HONEST, changes=(*HONEST.changes, *changes))


def without_deed(deed_: AwsCall) -> Evidence:
    return replace(HONEST, aws_calls=tuple(it for it in HONEST.aws_calls if it != deed_))


def test_an_honest_run_passes() -> None:
    assert find_violations(HONEST) == []


PLANTED: Sequence[tuple[str, str, Evidence]] = [
    ("replay", "run run does not replay: it parts", replace(HONEST, replayed=(run("it parts"),))),
    ("I1", "is running while", with_deeds(state(30, "i-third", "running", 2))),
    ("I1", "was launched while", without_deed(state(22, OLD, "terminated", 1))),
    (
        "I1",
        "i-new is pending while i-old is running",
        replace(
            HONEST,
            aws_calls=tuple(
                it for it in HONEST.aws_calls if it.outcome not in ("shutting-down", "terminated")
            ),
        ),
    ),
    ("I2", "but already had i-new", with_deeds(deed(29, "RunInstances", "launched", "i-third", 2))),
    ("I2", "no outcome is recorded", replace(HONEST, recorded=(*HONEST.recorded[:1], *HONEST.recorded[2:]))),
    ("I2", "has 2 outcomes", replace(HONEST, recorded=(*HONEST.recorded, request("r2", "stale", 2)))),
    (
        "I2",
        "r1 was answered with accepted, but joined is recorded",
        replace(
            HONEST,
            recorded=(request("r0", "accepted", 2, 1), request("r1", "joined", 2), *HONEST.recorded[1:]),
        ),
    ),
    (
        "I2",
        "2 requests opened generation 2",
        replace(HONEST, recorded=(*HONEST.recorded, request("r4", "accepted", 2, observed=1))),
    ),
    ("I2", "no accepted request opened generation 3", with_changes(change(30, "generations", generation=3))),
    (
        "I3",
        "a request about generation 1 opened 3",
        replace(
            HONEST,
            recorded=(*HONEST.recorded, request("r4", "accepted", 3, observed=1)),
            changes=(*HONEST.changes, change(30, "generations", generation=3)),
        ),
    ),
    ("I4", "tokens of generations 1, 2 are live", with_changes(token(30, "t1", 1, "active"))),
    ("I4", "2 tokens are active", with_changes(token(30, "t3", 2, "active"))),
    (
        "I4",
        "2 tokens are pending",
        with_changes(token(30, "t3", 2, "pending"), token(31, "t4", 2, "pending")),
    ),
    (
        "I5",
        "not settled in time",
        replace(
            HONEST,
            unsettled=(UnsettledWorkspace(workspace=WORKSPACE, at=50.0, seen="degraded", unauthorized=True),),
        ),
    ),
    (
        "settling",
        "not settled in time",
        replace(
            HONEST,
            unsettled=(
                UnsettledWorkspace(workspace=WORKSPACE, at=50.0, seen="degraded", unauthorized=False),
            ),
        ),
    ),
    ("I6", "generation 1 got a token after 2", with_changes(token(30, "t9", 1, "revoked"))),
    (
        "I6",
        "was answered with registered",
        replace(HONEST, audited=(*HONEST.audited, audited("register", "superseded", "registered"))),
    ),
    (
        "I7",
        "was answered with minted",
        replace(HONEST, audited=(*HONEST.audited, audited("register", "unproven", "minted"))),
    ),
    (
        "I7",
        "was answered with 200",
        replace(
            HONEST,
            unauthorized_attempts=(
                UnauthorizedAttempt(workspace=WORKSPACE, at=30.0, status=200, got_token=True),
            ),
        ),
    ),
    ("I8", "for generation 2 after 2", with_deeds(named(30, "10.0.0.2"))),
    ("I8", "for generation 1 after 2", with_deeds(named(30, "10.0.0.1"))),
    ("I8", "owned by another", with_deeds(named(30, "10.0.0.9"))),
    ("I8", "owned by no box", with_deeds(named(30, "10.9.9.9"))),
    ("I10", "had ended as processed, and became failed", with_changes(delegation(30, "failed"))),
    ("I10", "no box of its target recorded it", replace(HONEST, processed={})),
    (
        "I10",
        "is lost",
        replace(HONEST, delegated=(replace(HONEST.delegated[0], delegation_id="d2"),)),
    ),
    (
        "I10",
        "never ended: acked",
        replace(
            with_changes(delegation(30, "acked", "d2")),
            delegated=(replace(HONEST.delegated[0], delegation_id="d2"),),
        ),
    ),
    ("I11", "is in worker.log", replace(HONEST, texts={"worker.log": f"key={SECRET}"})),
    (
        "I12",
        "1 events in 3.0 quiet seconds: timer_fired",
        replace(HONEST, events=(Event(workspace=WORKSPACE, at=61.0, type="timer_fired"),)),
    ),
]


@pytest.mark.parametrize(("invariant", "words", "evidence"), PLANTED)
def test_a_planted_violation_is_found_and_nothing_else(
    invariant: str, words: str, evidence: Evidence
) -> None:
    found = find_violations(evidence)
    assert [it.invariant for it in found] == [invariant] * len(found)
    assert found
    assert words in found[0].what


LIES = [
    ("generation 3 is current", replace(WELL, generation=3)),
    ("has not registered", replace(WELL, registered=False)),
    ("it has no live token", replace(WELL, live_tokens=0)),
    ("its last heartbeat is 20.0 s old", replace(WELL, heartbeat_age=20.0)),
    ("its last heartbeat is None s old", replace(WELL, heartbeat_age=None)),
    ("its agent doesn't process", replace(WELL, not_processing=True)),
    ("has not answered a canary", replace(WELL, canary_answered=False)),
]


@pytest.mark.parametrize(("words", "truth"), LIES)
def test_online_that_is_shown_and_not_so_is_found(words: str, truth: BoxTruth) -> None:
    shown = replace(look(), before=truth, after=truth)
    [violation] = find_violations(replace(HONEST, status_samples=(shown,)))
    assert violation.invariant == "I9"
    assert words in violation.what


def test_a_truth_that_changed_while_it_was_looked_at_is_no_lie() -> None:
    gone = replace(WELL, live_tokens=0)
    assert find_violations(replace(HONEST, status_samples=(look(WELL, gone), look(gone, WELL)))) == []


def test_events_that_something_explains_cost_nothing() -> None:
    beating = Change(seq=90, at=58.0, transaction=90, table="workspace_outbox", workspace=WORKSPACE, row={})
    event = Event(workspace=WORKSPACE, at=61.0, type="workflow_execution_signaled")
    assert find_violations(replace(with_changes(beating), events=(event,))) == []


def test_a_token_that_is_replaced_within_one_transaction_is_one() -> None:
    swapped = (token(30, "t3", 2, "active", transaction=30), token(31, "t2", 2, "revoked", transaction=30))
    assert find_violations(with_changes(*swapped)) == []


def test_every_violation_has_a_timeline_of_what_all_witnesses_say() -> None:
    [violation] = find_violations(with_deeds(state(30, "i-third", "running", 2)))
    told = "\n".join(violation.timeline)
    for word in (NEW, "i-third", "tokens:", "request:", "history:"):
        assert word in told
    assert list(violation.timeline) == sorted(violation.timeline)


def test_a_timeline_is_of_the_time_around_the_violation() -> None:
    [violation] = find_violations(
        replace(HONEST, audited=(*HONEST.audited, audited("register", "unproven", "minted")))
    )
    told = "\n".join(violation.timeline)
    assert "API: register by unproven box of g2: minted" in told
    assert OLD not in told.partition("shutting-down")[0]


def test_a_secret_is_never_printed() -> None:
    [violation] = find_violations(replace(HONEST, texts={"api.log": SECRET}))
    assert SECRET not in repr(violation)
    assert SECRET not in repr(HONEST)
