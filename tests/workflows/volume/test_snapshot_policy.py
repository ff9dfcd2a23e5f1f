"""When a snapshot is due."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.workspace.scenarios import T0, after
from workflows.volume.snapshot_policy import (
    INITIAL_BACKOFF,
    MIN_INTERVAL,
    SnapshotDecision,
    SnapshotHistory,
    backoff,
    decide,
)


@pytest.mark.parametrize(
    ("past", "seconds", "decision"),
    [
        (SnapshotHistory(), 0, SnapshotDecision.ASK),
        (SnapshotHistory(asked_at=T0), 0, SnapshotDecision.RECENT),
        (SnapshotHistory(asked_at=T0), 899.9, SnapshotDecision.RECENT),
        (SnapshotHistory(asked_at=T0), 900, SnapshotDecision.ASK),
        (SnapshotHistory(asked_at=T0, pending=True), 1, SnapshotDecision.PENDING),
        (SnapshotHistory(asked_at=T0, pending=True), 90_000, SnapshotDecision.PENDING),
        (SnapshotHistory(refusals=1, refused_at=T0), 14.9, SnapshotDecision.BACKING_OFF),
        (SnapshotHistory(refusals=1, refused_at=T0), 15, SnapshotDecision.ASK),
        (SnapshotHistory(refusals=2, refused_at=T0), 29.9, SnapshotDecision.BACKING_OFF),
        (SnapshotHistory(refusals=2, refused_at=T0), 30, SnapshotDecision.ASK),
        (SnapshotHistory(refusals=50, refused_at=T0), 899.9, SnapshotDecision.BACKING_OFF),
        (SnapshotHistory(refusals=50, refused_at=T0), 900, SnapshotDecision.ASK),
        (SnapshotHistory(asked_at=T0, refusals=1, refused_at=after(1)), 600, SnapshotDecision.RECENT),
    ],
)
def test_the_decision_follows_from_earlier_snapshots(
    past: SnapshotHistory, seconds: float, decision: SnapshotDecision
) -> None:
    assert decide(past, after(seconds)) is decision


def test_the_backoff_doubles_up_to_a_maximum() -> None:
    backoffs = [backoff(refusals) for refusals in range(10)]
    assert backoffs[:4] == [timedelta(), INITIAL_BACKOFF, 2 * INITIAL_BACKOFF, 4 * INITIAL_BACKOFF]
    assert max(backoffs) == MIN_INTERVAL


REQUEST = st.tuples(st.floats(0, 1200), st.sampled_from(["taken", "refused", "lost"]), st.floats(0, 3000))


@given(st.lists(REQUEST, max_size=60))
def test_snapshots_keep_their_interval_and_never_overlap(
    requests: list[tuple[float, str, float]],
) -> None:
    past, now, finished_at = SnapshotHistory(), T0, T0
    taken: list[datetime] = []
    refused: list[datetime] = []
    for pause, answer, lasts in requests:
        now += timedelta(seconds=pause)
        if past.pending and now >= finished_at:
            past = replace(past, pending=False)
        if decide(past, now) is not SnapshotDecision.ASK:
            continue
        assert not past.pending
        if answer == "refused":
            refused.append(now)
            past = replace(past, refusals=past.refusals + 1, refused_at=now)
        else:
            taken.append(now)
            finished_at = now + timedelta(seconds=lasts)
            past = SnapshotHistory(pending=True, asked_at=now)
    assert all(later - earlier >= MIN_INTERVAL for earlier, later in pairwise(taken))
    assert all(later - earlier >= INITIAL_BACKOFF for earlier, later in pairwise(refused))


def test_many_recreates_in_a_burst_request_one_snapshot() -> None:
    past, requested = SnapshotHistory(), 0
    for second in range(0, 600, 12):
        if decide(past, after(second)) is SnapshotDecision.ASK:
            requested += 1
            past = SnapshotHistory(asked_at=after(second))
    assert requested == 1
