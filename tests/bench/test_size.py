from dataclasses import fields

from bench.measurements.watchdog import GOALS_MS
from bench.parts.size import FULL, SMALL


def test_a_small_run_does_less_of_everything() -> None:
    for each in fields(FULL):
        if each.name != "name":
            assert getattr(SMALL, each.name) <= getattr(FULL, each.name), each.name


def test_a_full_run_has_the_sizes_that_the_goals_name() -> None:
    assert FULL.fleets == (100, 1_000, 10_000)
    assert FULL.stampede == 2_000
    assert set(GOALS_MS) <= set(FULL.watched)


def test_a_comparison_has_a_spread() -> None:
    assert SMALL.rounds >= 2
    assert FULL.rounds >= 5
