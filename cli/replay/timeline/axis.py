"""The time axis of the chart: true to scale, except that long pauses are compressed."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

MAX_PAUSE_FACTOR = 8
"""A pause longer than this multiple of the 90th percentile of all pauses is compressed to that length."""

MIN_COMPRESSED_PAUSE = timedelta(milliseconds=250)
"""Shorter pauses are never compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisSection:
    """A part of the axis with a constant scale."""

    begin: datetime
    end: datetime
    left: float
    right: float
    compressed: bool


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Maps times to positions from 0 to 1."""

    sections: tuple[AxisSection, ...]

    def at(self, when: datetime) -> float:
        """The position of a time; times outside the axis are at its ends."""
        index = bisect_left(self.sections, when, key=lambda section: section.end)
        if index == len(self.sections):
            return 1.0
        section = self.sections[index]
        length = section.end - section.begin
        share = max((when - section.begin) / length, 0.0) if length else 0.0
        return section.left + (section.right - section.left) * share

    def when(self, position: float) -> datetime:
        """The time at a position."""
        for section in self.sections:
            if position <= section.right:
                width = section.right - section.left
                share = (position - section.left) / width if width else 0.0
                return section.begin + (section.end - section.begin) * share
        return self.sections[-1].end

    @property
    def compressed(self) -> tuple[AxisSection, ...]:
        """The compressed pauses."""
        return tuple(section for section in self.sections if section.compressed)


def time_axis(times: Iterable[datetime]) -> TimeAxis:
    """An axis for the times at which something happened; needs at least one."""
    points = sorted(set(times))
    pauses = sorted(later - earlier for earlier, later in pairwise(points))
    longest = MIN_COMPRESSED_PAUSE
    if pauses:
        longest = max(longest, MAX_PAUSE_FACTOR * pauses[int(len(pauses) * 0.9)])
    total = sum((min(pause, longest) for pause in pauses), timedelta()) or MIN_COMPRESSED_PAUSE
    sections: list[AxisSection] = []
    left = 0.0
    for begin, end in pairwise(points):
        right = left + min(end - begin, longest) / total
        compressed = end - begin > longest
        sections.append(AxisSection(begin=begin, end=end, left=left, right=right, compressed=compressed))
        left = right
    if not sections:
        sections = [AxisSection(begin=points[0], end=points[0], left=0.0, right=1.0, compressed=False)]
    return TimeAxis(tuple(sections))
