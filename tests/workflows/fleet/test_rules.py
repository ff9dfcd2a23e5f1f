"""When automatic recreates freeze, and how many may be in progress."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflows.fleet.rules import FleetCounts, FleetPolicy, decide

NOW = datetime(2026, 6, 11, 12, tzinfo=UTC)
POLICY = FleetPolicy()


def counts(
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
def test_a_tenth_of_the_fleet_at_least_one_and_at_most_twenty_are_recreated_at_once(
    running: int, max_concurrent: int
) -> None:
    assert decide(counts(running=running), POLICY).max_concurrent == max_concurrent
    assert decide(counts(running=running), POLICY).free == max_concurrent


@pytest.mark.parametrize(
    ("running", "stale", "frozen"),
    [
        (100, 20, False),
        (100, 21, True),
        (5, 2, True),
        (4, 4, False),
    ],
)
def test_more_than_a_fifth_stale_freezes_a_fleet_of_five_or_more(
    running: int, stale: int, frozen: bool
) -> None:
    decision = decide(counts(running=running, stale=stale), POLICY)
    assert (decision.frozen is not None) == frozen
    if decision.frozen is not None:
        assert f"{stale} of {running}" in decision.frozen


def test_automatic_recreates_freeze_while_no_heartbeats_are_accepted() -> None:
    assert decide(counts(intake_at=NOW - timedelta(seconds=89)), POLICY).frozen is None
    frozen = decide(counts(intake_at=NOW - timedelta(seconds=90)), POLICY).frozen
    assert frozen is not None
    assert "no heartbeats have been accepted since 11:58:30" in frozen


def test_after_an_outage_boxes_have_90_seconds_to_send_a_heartbeat() -> None:
    assert decide(counts(intake_since=NOW - timedelta(seconds=90)), POLICY).frozen is None
    frozen = decide(counts(intake_since=NOW - timedelta(seconds=89)), POLICY).frozen
    assert frozen is not None
    assert "until 12:00:01" in frozen


def test_a_fleet_without_any_register_api_yet_is_not_frozen() -> None:
    assert decide(counts(intake_at=None, intake_since=None), POLICY).frozen is None


@given(
    running=st.integers(0, 20_000),
    stale=st.integers(0, 20_000),
    recreating=st.integers(0, 50),
    away=st.integers(0, 7200),
    since=st.none() | st.integers(0, 7200),
)
def test_free_slots_never_exceed_the_limit_and_are_zero_in_a_freeze(
    running: int, stale: int, recreating: int, away: int, since: int | None
) -> None:
    decision = decide(
        counts(
            running=running,
            stale=stale,
            recreating=recreating,
            intake_at=NOW - timedelta(seconds=away),
            intake_since=None if since is None else NOW - timedelta(seconds=since),
        ),
        POLICY,
    )
    assert 1 <= decision.max_concurrent <= 20
    assert decision.free + recreating <= max(decision.max_concurrent, recreating)
    assert decision.free == 0 or decision.frozen is None
    assert (decision.frozen is not None) == (
        away >= 90 or (since is not None and since < 90) or (running >= 5 and stale > running * 0.2)
    )


@pytest.mark.parametrize(("ago", "frozen"), [(0, True), (89, True), (90, False), (3600, False)])
def test_the_freeze_outlasts_the_last_time_the_fleet_was_stale_by_90_seconds(ago: int, frozen: bool) -> None:
    decision = decide(counts(stale=20, fleet_stale_at=NOW - timedelta(seconds=ago)), POLICY)
    assert (decision.frozen is not None) == frozen
    assert not decision.fleet_stale, "the fleet is not stale now"
    assert decide(counts(stale=21), POLICY).fleet_stale
