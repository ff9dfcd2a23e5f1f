"""The result of a run: its numbers, table, JSON and page."""

import json
from html.parser import HTMLParser

from typing_extensions import override

from faults.fault_kinds import KINDS
from faults.invariants.evidence import Violation
from faults.page import page
from faults.summary import RoundResult, RunSummary, as_json, percentile, table

FIRST, SECOND = KINDS[0].name, KINDS[1].name


def round_result(number: int, settled_after: float | None) -> RoundResult:
    return RoundResult(
        number=number,
        effective={FIRST: 2, SECOND: 1},
        ineffective={SECOND: 1},
        settled_after=settled_after,
        online=7,
        stopped=1,
        deleted=0,
        held_back=1,
    )


def tally(*violations: Violation) -> RunSummary:
    return RunSummary(
        seed=7,
        machine="2 cores",
        minutes=2.5,
        settle_limit=240.0,
        rounds=(round_result(1, 10.0), round_result(2, 30.0), round_result(3, None)),
        requests={"recreate, signal": 5},
        outcomes={"accepted": 2, "stale": 3},
        recreates=2,
        delegations={"processed": 9},
        reset=4,
        evidence={"looks at what is shown": 100, "history events": 50},
        violations=violations,
    )


BROKEN = Violation(
    invariant="I1", workspace="ws", at=1.0, what="two <boxes> at once", timeline=("12:00:00 AWS: launched",)
)


def test_the_table_has_faults_by_kind_and_the_times_to_settle() -> None:
    text = table(tally())
    assert "p50 10.0 s, p99 30.0 s, worst 30.0 s" in text
    assert "9 of 2 kinds" in text
    assert "reset by repair         4" in text
    assert "100 looks at what is shown, 50 history events" in text
    assert f"{FIRST:<28}{6:>6}{0:>8}" in text
    assert f"{SECOND:<28}{3:>6}{3:>8}" in text
    assert f"{KINDS[-1].name:<28}{0:>6}{0:>8}" in text


def test_a_violation_is_reported_with_its_timeline() -> None:
    text = table(tally(BROKEN))
    assert "VIOLATION I1 ws: two <boxes> at once" in text
    assert "    12:00:00 AWS: launched" in text


def test_the_json_can_be_read_again_and_says_whether_it_passed() -> None:
    read = json.loads(json.dumps(as_json(tally(BROKEN))))
    assert read["passed"] is False
    assert read["faults"] == {FIRST: 6, SECOND: 3}
    assert read["settle"] == {"p50": 10.0, "p99": 30.0, "worst": 30.0}
    assert read["violations"][0]["invariant"] == "I1"
    assert json.loads(json.dumps(as_json(tally())))["passed"] is True


class Links(HTMLParser):
    """Elements with which a page would load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe") or {name for name, _ in attrs} & {"src", "href"}:
            self.found.append(tag)

    @override
    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_shows_what_broke() -> None:
    parsed = Links()
    parsed.feed(page(tally(BROKEN)))
    assert parsed.found == []
    assert "two <boxes> at once" in parsed.text
    assert "AWS: launched" in parsed.text
    assert "not in time" in parsed.text
    assert "No invariant was violated." in page(tally())


def test_percentiles_are_values_that_were_seen() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert percentile([], 0.5) == 0.0
