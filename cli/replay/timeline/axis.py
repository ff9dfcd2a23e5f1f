"""Time on a page: true to scale, but for stretches in which nothing happened, which are squeezed and marked.

Knows times and shares of a width; nothing of what is drawn.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

MAX_PAUSE_FACTOR = 8
"""A pause longer than so many of the longer pauses (the 90th percentile) is squeezed to that length."""

MIN_COMPRESSED_PAUSE = timedelta(milliseconds=250)
"""No pause shorter than this is squeezed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisSection:
    """A part of the width that is true to scale in itself."""

    begin: datetime
    end: datetime
    left: float
    right: float
    compressed: bool


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Where on the width, 0 to 1, an instant is."""

    sections: tuple[AxisSection, ...]

    def at(self, when: datetime) -> float:
        """The instant's place; those outside are at the ends."""
        index = bisect_left(self.sections, when, key=lambda piece: piece.end)
        if index == len(self.sections):
            return 1.0
        piece = self.sections[index]
        length = (piece.end - piece.begin) / timedelta(seconds=1)
        into = max((when - piece.begin) / timedelta(seconds=1), 0.0)
        return piece.left + (piece.right - piece.left) * (into / length if length else 0.0)

    def when(self, position: float) -> datetime:
        """The instant at a place."""
        for piece in self.sections:
            if position <= piece.right:
                width = piece.right - piece.left
                return piece.begin + (piece.end - piece.begin) * (
                    (position - piece.left) / width if width else 0.0
                )
        return self.sections[-1].end

    @property
    def compressed(self) -> tuple[AxisSection, ...]:
        """The pauses that are not true to scale."""
        return tuple(piece for piece in self.sections if piece.compressed)


def time_axis(times: Iterable[datetime]) -> TimeAxis:
    """A scale over the instants at which something happened; at least one."""
    points = sorted(set(times))
    pauses = [later - earlier for earlier, later in pairwise(points)]
    longest = (
        max(MIN_COMPRESSED_PAUSE, MAX_PAUSE_FACTOR * sorted(pauses)[int(len(pauses) * 0.9)])
        if pauses
        else MIN_COMPRESSED_PAUSE
    )
    shown = [min(pause, longest) for pause in pauses]
    total = sum(shown, timedelta()) or MIN_COMPRESSED_PAUSE
    pieces, left = [], 0.0
    for index, (pause, width) in enumerate(zip(pauses, shown, strict=True)):
        right = left + width / total
        pieces.append(
            AxisSection(
                begin=points[index], end=points[index + 1], left=left, right=right, compressed=pause > longest
            )
        )
        left = right
    if not pieces:
        pieces = [AxisSection(begin=points[0], end=points[0], left=0.0, right=1.0, compressed=False)]
    return TimeAxis(tuple(pieces))
