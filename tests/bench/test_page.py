import pytest

from bench.__main__ import HERE
from bench.parts.results import Report
from bench.report import plots
from bench.report.page import number, page
from tests.bench.measured import MET, MISSED, report


def _page(report: Report) -> str:
    return page(report, lambda result: [f"{result.name}.svg"])


def test_a_missed_goal_is_reported_with_a_profile() -> None:
    text = _page(report(MET, MISSED))
    assert "meets 1 of 2 goals" in text
    assert "| time to online | 1.25 s | < 1 s | **not met** |" in text
    assert "**Why “time to online” is not met.**" in text
    assert "| psycopg | 61 % |" in text


def test_a_met_goal_needs_no_excuse() -> None:
    text = _page(report(MET))
    assert "| half of a constant | 0.5 | ≥ 0.5 | met |" in text
    assert "is not met" not in text


def test_ratios_are_shown_with_their_spread() -> None:
    assert "**0.5** (0.25 … 0.9)" in _page(report(MET))


def test_a_small_run_says_that_it_is_one() -> None:
    assert "A small run" in _page(report(MET, size="small"))
    assert "A small run" not in _page(report(MET, size="full"))


def test_everything_of_a_result_is_on_the_page() -> None:
    text = _page(report(MET))
    for words in ("12.3 ms", "10: 5, 1,000: 4", "RunInstances", "That is all.", "2 × one", "beats.svg"):
        assert words in text


def test_each_goal_leads_to_its_section() -> None:
    assert "[Beats of one API](#beats-of-one-api)" in _page(report(MET))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (3.0, "3"), (0.12345, "0.123"), (0.00012, "1.2e-04"), (12.345, "12.3"), (12345.6, "12,346")],
)
def test_numbers_have_three_digits_that_count(value: float, shown: str) -> None:
    assert number(value) == shown


def test_the_page_in_the_documents_is_made_from_the_results_beside_it() -> None:
    written = (HERE.parent / "docs" / "performance.md").read_text()
    made = [
        page(Report.model_validate_json(file.read_text()), plots.names)
        for file in (HERE / "results").glob("*.json")
    ]
    assert written in made


def test_every_plot_of_the_page_is_there() -> None:
    for file in (HERE / "results").glob("*.json"):
        for result in Report.model_validate_json(file.read_text()).results:
            for name in plots.names(result):
                assert (HERE / "results" / name).exists()
