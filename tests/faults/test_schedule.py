"""The schedule: constant for a seed, fair to all kinds, within its bounds."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from faults.fault_kinds import KINDS, LASTS
from faults.injection import FULL_DATABASE, supported_kinds
from faults.schedule import FAULTS_IN_A_ROUND, ROUND_SECONDS, rounds_in, schedule

seeds = st.integers(min_value=0, max_value=2**31)
a_few = settings(max_examples=20)


@a_few
@given(seed=seeds, rounds=st.integers(min_value=1, max_value=9))
def test_the_same_seed_brings_the_same_faults(seed: int, rounds: int) -> None:
    assert schedule(seed, rounds=rounds) == schedule(seed, rounds=rounds)


@a_few
@given(seed=seeds)
def test_another_seed_brings_other_faults(seed: int) -> None:
    assert schedule(seed, rounds=1) != schedule(seed + 1, rounds=1)


@a_few
@given(seed=seeds, rounds=st.integers(min_value=1, max_value=9))
def test_no_kind_comes_more_than_once_more_often_than_another(seed: int, rounds: int) -> None:
    counts = Counter(fault.kind for each in schedule(seed, rounds=rounds) for fault in each.faults)
    occurrences = [counts[kind] for kind in KINDS]
    assert max(occurrences) - min(occurrences) <= 1


@a_few
@given(seed=seeds)
def test_twenty_minutes_bring_more_than_500_faults_and_every_kind_more_than_ten_times(seed: int) -> None:
    rounds = schedule(seed, rounds=rounds_in(20))
    counts = Counter(fault.kind for each in rounds for fault in each.faults)
    assert counts.total() >= 500
    assert min(counts[kind] for kind in KINDS) > 10


@a_few
@given(seed=seeds, rounds=st.integers(min_value=1, max_value=5))
def test_faults_begin_within_their_round_and_last_as_long_as_their_kind_says(seed: int, rounds: int) -> None:
    for number, each in enumerate(schedule(seed, rounds=rounds), start=1):
        assert each.number == number
        assert len(each.faults) == FAULTS_IN_A_ROUND
        assert list(each.faults) == sorted(each.faults, key=lambda fault: fault.at)
        for fault in each.faults:
            least, most = LASTS[fault.kind.family]
            assert 0 <= fault.at <= ROUND_SECONDS
            assert least <= fault.seconds <= most


@a_few
@given(seed=seeds, among=st.lists(st.text(), min_size=1, max_size=9))
def test_a_fault_selects_an_existing_target(seed: int, among: list[str]) -> None:
    for fault in schedule(seed, rounds=1)[0].faults:
        assert fault.choose(among) in among


def test_without_a_disk_of_its_own_postgresql_is_never_filled_up() -> None:
    assert FULL_DATABASE not in supported_kinds(disk=False)
    assert set(supported_kinds(disk=True)) - set(supported_kinds(disk=False)) == {FULL_DATABASE}


def test_a_fraction_of_a_minute_is_a_round() -> None:
    assert rounds_in(0.1) == 1
    assert rounds_in(20) == 20
