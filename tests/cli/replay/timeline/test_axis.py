"""The time axis: to scale, with long pauses compressed, and in order."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from cli.replay.timeline.axis import time_axis

BEGIN = datetime(2026, 6, 11, 22, 19, tzinfo=UTC)


def _times(*seconds: float) -> list[datetime]:
    return [BEGIN + timedelta(seconds=second) for second in seconds]


def test_without_long_pauses_it_is_true_to_scale() -> None:
    axis = time_axis(_times(0, 1, 2, 4))
    assert [axis.at(when) for when in _times(0, 1, 2, 4)] == [0.0, 0.25, 0.5, 1.0]
    assert not axis.compressed


def test_a_pause_of_hours_is_compressed() -> None:
    busy = [*range(20), *range(10_000, 10_020)]
    axis = time_axis(_times(*busy))
    assert [(it.end - it.begin).total_seconds() for it in axis.compressed] == [10_000 - 19]
    assert axis.at(_times(19)[0]) > 0.3


def test_a_single_instant_has_a_position() -> None:
    axis = time_axis(_times(5))
    assert axis.at(BEGIN) == 0.0
    assert axis.when(0.5) == _times(5)[0]


@given(st.lists(st.floats(min_value=0, max_value=1e7), min_size=2, max_size=30))
def test_later_is_never_further_left(seconds: list[float]) -> None:
    times = sorted(_times(*seconds))
    axis = time_axis(times)
    found = [axis.at(when) for when in times]
    assert found == sorted(found)
    assert all(0.0 <= position <= 1.0 + 1e-9 for position in found)
