"""Which faults come when: a function of a seed and a number of rounds. Standard library only.

Nothing is injected here; the same seed gives the same schedule for ever.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from faults.fault_kinds import KINDS, LASTS, Family, Kind

_T = TypeVar("_T")

FAULTS_IN_A_ROUND = 32
"""Of some forty kinds: so many at once that most meet others, and every kind comes in two rounds."""

ROUND_SECONDS = 28.0
"""For so long faults begin; the last ones may last for some seconds more."""

ROUNDS_IN_A_MINUTE = 1
"""A round takes about a minute: the faults, what settles after them, the quiet look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault of a round."""

    kind: Kind
    at: float
    """Seconds from the round's beginning."""
    seconds: float
    """How long it lasts."""
    draw: float
    """In [0, 1): whom it befalls, of those that are there by then."""

    def choose(self, among: Sequence[_T], *, attempt: int = 0) -> _T:
        """Whom it befalls; another one at the next attempt."""
        return among[(int(self.draw * len(among)) + attempt) % len(among)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Faults that come together."""

    number: int
    """From 1."""
    faults: tuple[Fault, ...]
    """By the time of their beginning."""


def schedule(seed: int, *, rounds: int, kinds: Sequence[Kind] = KINDS) -> tuple[Round, ...]:
    """The rounds. No kind comes much more often than another: they are dealt like cards, pack by pack."""
    drawing = random.Random(seed)  # noqa: S311 - it is to be repeatable, not secret
    dealt = _draw(drawing, kinds)
    return tuple(
        Round(
            number=number,
            faults=tuple(
                sorted(
                    (_fault(drawing, next(dealt)) for _ in range(FAULTS_IN_A_ROUND)),
                    key=lambda fault: fault.at,
                )
            ),
        )
        for number in range(1, rounds + 1)
    )


def rounds_in(minutes: float) -> int:
    """How many rounds fill so many minutes; one at least."""
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
        # Who is to meet these has to be asked for a box first: that takes a while under all others.
        at=drawing.uniform(0.0, ROUND_SECONDS / 2 if slow_to_meet else ROUND_SECONDS),
        seconds=drawing.uniform(least, most),
        draw=drawing.random(),
    )
