"""Time on a page: true to scale, but for stretches in which nothing happened, which are squeezed and marked.

Knows times and shares of a width; nothing of what is drawn.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

LONGEST_QUIET = 8
"""A pause longer than so many of the longer pauses (the 90th percentile) is squeezed to that length."""

SHORTEST = timedelta(milliseconds=250)
"""No pause shorter than this is squeezed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of the width that is true to scale in itself."""

    begin: datetime
    end: datetime
    left: float
    right: float
    squeezed: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """Where on the width, 0 to 1, an instant is."""

    pieces: tuple[Piece, ...]

    def at(self, when: datetime) -> float:
        """The instant's place; those outside are at the ends."""
        index = bisect_left(self.pieces, when, key=lambda piece: piece.end)
        if index == len(self.pieces):
            return 1.0
        piece = self.pieces[index]
        length = (piece.end - piece.begin) / timedelta(seconds=1)
        into = max((when - piece.begin) / timedelta(seconds=1), 0.0)
        return piece.left + (piece.right - piece.left) * (into / length if length else 0.0)

    def when(self, place: float) -> datetime:
        """The instant at a place."""
        for piece in self.pieces:
            if place <= piece.right:
                width = piece.right - piece.left
                return piece.begin + (piece.end - piece.begin) * (
                    (place - piece.left) / width if width else 0.0
                )
        return self.pieces[-1].end

    @property
    def squeezed(self) -> tuple[Piece, ...]:
        """The pauses that are not true to scale."""
        return tuple(piece for piece in self.pieces if piece.squeezed)


def scale(times: Iterable[datetime]) -> Scale:
    """A scale over the instants at which something happened; at least one."""
    points = sorted(set(times))
    pauses = [later - earlier for earlier, later in pairwise(points)]
    longest = max(SHORTEST, LONGEST_QUIET * sorted(pauses)[int(len(pauses) * 0.9)]) if pauses else SHORTEST
    shown = [min(pause, longest) for pause in pauses]
    total = sum(shown, timedelta()) or SHORTEST
    pieces, left = [], 0.0
    for index, (pause, width) in enumerate(zip(pauses, shown, strict=True)):
        right = left + width / total
        pieces.append(
            Piece(
                begin=points[index], end=points[index + 1], left=left, right=right, squeezed=pause > longest
            )
        )
        left = right
    if not pieces:
        pieces = [Piece(begin=points[0], end=points[0], left=0.0, right=1.0, squeezed=False)]
    return Scale(tuple(pieces))
