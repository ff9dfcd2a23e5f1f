"""The fleet's rules: when nothing automatic begins, and how much may at once."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.fleet.rules import FleetCounts, FleetPolicy, decide

NOW = datetime(2026, 6, 11, 12, tzinfo=UTC)
POLICY = FleetPolicy()


def figures(
    *,
    running: int = 100,
    stale: int = 0,
    recreating: int = 0,
    intake_at: datetime | None = NOW,
    intake_since: datetime | None = None,
    fleet_stale_at: datetime | None = None,
) -> FleetCounts:
    return FleetCounts(
        now=NOW,
        running=running,
        stale=stale,
        recreating=recreating,
        intake_at=intake_at,
        intake_since=intake_since,
        fleet_stale_at=fleet_stale_at,
    )


@pytest.mark.parametrize(
    ("running", "max_concurrent"),
    [(0, 1), (1, 1), (9, 1), (19, 1), (20, 2), (100, 10), (200, 20), (10_000, 20)],
)
def test_a_tenth_of_the_fleet_at_least_one_at_most_twenty_are_recreated_at_once(
    running: int, max_concurrent: int
) -> None:
    assert decide(figures(running=running), POLICY).max_concurrent == max_concurrent
    assert decide(figures(running=running), POLICY).free == max_concurrent


@pytest.mark.parametrize(
    ("running", "stale", "frozen"),
    [
        (100, 20, False),
        (100, 21, True),
        (5, 1, False),
        (5, 2, True),
        (4, 4, False),
        (1, 1, False),
        (0, 0, False),
    ],
)
def test_over_a_fifth_of_five_or_more_is_not_a_boxes_trouble(running: int, stale: int, frozen: bool) -> None:
    verdict = decide(figures(running=running, stale=stale), POLICY)
    assert (verdict.frozen is not None) == frozen
    if verdict.frozen is not None:
        assert f"{stale} of {running}" in verdict.frozen


def test_while_no_beats_are_taken_in_silence_says_nothing() -> None:
    assert decide(figures(intake_at=NOW - timedelta(seconds=89)), POLICY).frozen is None
    frozen = decide(figures(intake_at=NOW - timedelta(seconds=90)), POLICY).frozen
    assert frozen is not None
    assert "no beats are taken in since 11:58:30" in frozen


def test_after_an_outage_boxes_have_three_beats_of_time() -> None:
    assert decide(figures(intake_since=NOW - timedelta(seconds=90)), POLICY).frozen is None
    frozen = decide(figures(intake_since=NOW - timedelta(seconds=89)), POLICY).frozen
    assert frozen is not None
    assert "until 12:00:01" in frozen


def test_a_fleet_that_never_had_an_api_is_not_frozen_for_it() -> None:
    assert decide(figures(intake_at=None, intake_since=None), POLICY).frozen is None


@given(
    running=st.integers(0, 20_000),
    stale=st.integers(0, 20_000),
    recreating=st.integers(0, 50),
    away=st.integers(0, 7200),
    since=st.none() | st.integers(0, 7200),
)
def test_what_is_free_never_passes_the_budget_and_is_nothing_in_a_freeze(
    running: int, stale: int, recreating: int, away: int, since: int | None
) -> None:
    verdict = decide(
        figures(
            running=running,
            stale=stale,
            recreating=recreating,
            intake_at=NOW - timedelta(seconds=away),
            intake_since=None if since is None else NOW - timedelta(seconds=since),
        ),
        POLICY,
    )
    assert 1 <= verdict.max_concurrent <= 20
    assert verdict.free + recreating <= max(verdict.max_concurrent, recreating)
    assert verdict.free == 0 or verdict.frozen is None
    assert (verdict.frozen is not None) == (
        away >= 90 or (since is not None and since < 90) or (running >= 5 and stale > running * 0.2)
    )


@pytest.mark.parametrize(("ago", "frozen"), [(0, True), (89, True), (90, False), (3600, False)])
def test_boxes_that_recover_one_after_the_other_have_time_to(ago: int, frozen: bool) -> None:
    verdict = decide(figures(stale=20, fleet_stale_at=NOW - timedelta(seconds=ago)), POLICY)
    assert (verdict.frozen is not None) == frozen
    assert not verdict.fleet_stale, "the time runs from when too many were last seen"
    assert decide(figures(stale=21), POLICY).fleet_stale
