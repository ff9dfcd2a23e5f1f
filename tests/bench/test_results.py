import pytest

from bench.parts.results import Goal, Relation, Report, percentile, spread
from tests.bench.measured import COMPARISON, MET, MISSED, report


def test_a_ratio_is_taken_round_by_round_and_keeps_its_spread() -> None:
    ratio = COMPARISON.ratio
    assert (ratio.least, ratio.median, ratio.most) == (0.25, 0.5, 0.9)


def test_both_sides_of_a_comparison_have_a_spread_of_their_own() -> None:
    assert (COMPARISON.of_ours.least, COMPARISON.of_ours.most) == (30.0, 90.0)
    assert (COMPARISON.of_theirs.median, COMPARISON.of_theirs.most) == (100.0, 120.0)


def test_nothing_has_no_spread_and_no_percentile() -> None:
    with pytest.raises(ValueError):
        spread([])
    with pytest.raises(ValueError):
        percentile([], 0.99)


@pytest.mark.parametrize(
    ("share", "expected"), [(0.0, 1.0), (0.5, 50.0), (0.505, 51.0), (0.99, 99.0), (1.0, 100.0)]
)
def test_a_percentile_is_a_value_that_was_seen(share: float, expected: float) -> None:
    assert percentile([float(each) for each in range(100, 0, -1)], share) == expected


@pytest.mark.parametrize(
    ("relation", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        ("==", False, True, False),
        (">=", False, True, True),
        (">", False, False, True),
    ],
)
def test_a_goal_is_met_as_its_relation_says(
    relation: Relation, below: bool, equal: bool, above: bool
) -> None:
    seen = [Goal(text="it", seen=value, relation=relation, limit=2.0).met for value in (1.0, 2.0, 3.0)]
    assert seen == [below, equal, above]


def test_a_report_comes_back_from_its_json_as_it_was() -> None:
    before = report(MET, MISSED)
    assert Report.model_validate_json(before.model_dump_json()) == before
