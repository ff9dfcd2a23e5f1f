"""The smallest run of a benchmark on real parts, as a smoke test."""

from dataclasses import replace

from bench.measurements import registrations
from bench.parts.results import Report
from bench.parts.size import SMALL


def test_registrations_are_measured_on_both_sides_and_all_of_the_stampede_get_in() -> None:
    size = replace(SMALL, rounds=1, connections=2, fleets=(2, 4), registrations=4, stampede=8)
    result = registrations.run(size)
    assert all(goal.met for goal in result.goals)
    assert [len(each.rounds) for each in result.comparisons] == [1]
    assert all(min(pair) > 0 for each in result.comparisons for pair in each.rounds)
    assert [at for at, _ in result.lines[0].points] == [2, 4]
    [writes] = [each.value for each in result.figures if each.name == "write transactions per registration"]
    assert writes >= 1, "a minted token is written"
    assert Report(size="small", machine={}, minutes=0, results=(result,)).goals
