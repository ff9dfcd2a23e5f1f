"""The schedule of faults: a function of a seed and a number of rounds. Standard library only."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from faults.fault_kinds import KINDS, LASTS, Family, Kind

_T = TypeVar("_T")

FAULTS_IN_A_ROUND = 32
"""Out of some forty kinds. Most faults overlap with others, and every kind occurs within two rounds."""

ROUND_SECONDS = 28.0
"""Faults begin within this time; the last ones may end some seconds later."""

ROUNDS_IN_A_MINUTE = 1
"""A round takes about a minute: the faults, the settling, the quiet period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a round."""

    kind: Kind
    at: float
    """Seconds since the start of the round."""
    seconds: float
    """Duration."""
    draw: float
    """In [0, 1): selects the target among those that exist at the time."""

    def choose(self, among: Sequence[_T], *, attempt: int = 0) -> _T:
        """Return the target; another attempt selects another one."""
        return among[(int(self.draw * len(among)) + attempt) % len(among)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The faults of one round."""

    number: int
    """Starts at 1."""
    faults: tuple[Fault, ...]
    """Sorted by start time."""


def schedule(seed: int, *, rounds: int, kinds: Sequence[Kind] = KINDS) -> tuple[Round, ...]:
    """Return the rounds. Kinds are drawn without replacement, so that they occur equally often."""
    drawing = random.Random(seed)  # noqa: S311 - repeatable on purpose, not a secret
    drawn = _draw(drawing, kinds)
    return tuple(
        Round(
            number=number,
            faults=tuple(
                sorted(
                    (_fault(drawing, next(drawn)) for _ in range(FAULTS_IN_A_ROUND)),
                    key=lambda fault: fault.at,
                )
            ),
        )
        for number in range(1, rounds + 1)
    )


def rounds_in(minutes: float) -> int:
    """Return the number of rounds that fit into this time; at least one."""
    return max(1, round(minutes * ROUNDS_IN_A_MINUTE))


def _draw(drawing: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        pack = list(kinds)
        drawing.shuffle(pack)
        yield from pack


def _fault(drawing: random.Random, kind: Kind) -> Fault:
    least, most = LASTS[kind.family]
    slow_to_meet = kind.family in (Family.AWS, Family.MACHINE)
    return Fault(
        kind=kind,
        # A recreate has to be requested before these take effect, which takes a while under other faults.
        at=drawing.uniform(0.0, ROUND_SECONDS / 2 if slow_to_meet else ROUND_SECONDS),
        seconds=drawing.uniform(least, most),
        draw=drawing.random(),
    )
