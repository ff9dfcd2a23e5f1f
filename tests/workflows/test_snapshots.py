"""When a snapshot is due: the rules alone, over time."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workflows.stories import T0, after
from workflows.snapshots import FIRST_PAUSE, SPACING, Past, Verdict, judge, pause_after


@pytest.mark.parametrize(
    ("past", "seconds", "verdict"),
    [
        (Past(), 0, Verdict.ASK),
        (Past(asked_at=T0), 0, Verdict.RECENT),
        (Past(asked_at=T0), 899.9, Verdict.RECENT),
        (Past(asked_at=T0), 900, Verdict.ASK),
        (Past(asked_at=T0, pending=True), 1, Verdict.PENDING),
        (Past(asked_at=T0, pending=True), 90_000, Verdict.PENDING),
        (Past(refusals=1, refused_at=T0), 14.9, Verdict.BACKING_OFF),
        (Past(refusals=1, refused_at=T0), 15, Verdict.ASK),
        (Past(refusals=2, refused_at=T0), 29.9, Verdict.BACKING_OFF),
        (Past(refusals=2, refused_at=T0), 30, Verdict.ASK),
        (Past(refusals=50, refused_at=T0), 899.9, Verdict.BACKING_OFF),
        (Past(refusals=50, refused_at=T0), 900, Verdict.ASK),
        (Past(asked_at=T0, refusals=1, refused_at=after(1)), 600, Verdict.RECENT),
    ],
)
def test_a_wish_is_judged_by_what_was_asked_before(past: Past, seconds: float, verdict: Verdict) -> None:
    assert judge(past, after(seconds)) is verdict


def test_the_pause_doubles_and_has_an_end() -> None:
    pauses = [pause_after(refusals) for refusals in range(10)]
    assert pauses[:4] == [timedelta(), FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert max(pauses) == SPACING


WISH = st.tuples(st.floats(0, 1200), st.sampled_from(["taken", "refused", "lost"]), st.floats(0, 3000))


@given(st.lists(WISH, max_size=60))
def test_whatever_ec2_does_no_two_are_closer_than_the_spacing_and_never_two_pending(
    wishes: list[tuple[float, str, float]],
) -> None:
    past, now, finished_at = Past(), T0, T0
    taken: list[datetime] = []
    refused: list[datetime] = []
    for pause, answer, lasts in wishes:
        now += timedelta(seconds=pause)
        if past.pending and now >= finished_at:
            past = replace(past, pending=False)
        if judge(past, now) is not Verdict.ASK:
            continue
        assert not past.pending
        if answer == "refused":
            refused.append(now)
            past = replace(past, refusals=past.refusals + 1, refused_at=now)
        else:
            taken.append(now)
            finished_at = now + timedelta(seconds=lasts)
            past = Past(pending=True, asked_at=now)
    assert all(later - earlier >= SPACING for earlier, later in pairwise(taken))
    assert all(later - earlier >= FIRST_PAUSE for earlier, later in pairwise(refused))


def test_a_storm_of_wishes_asks_once() -> None:
    past, asked = Past(), 0
    for second in range(0, 600, 12):
        if judge(past, after(second)) is Verdict.ASK:
            asked += 1
            past = Past(asked_at=after(second))
    assert asked == 1
