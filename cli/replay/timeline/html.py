"""The lanes as HTML, and as a table for those who don't see them.

Places and escapes; what is drawn is decided in `lanes`.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from html import escape

from cli.replay.timeline.answers import clock
from cli.replay.timeline.axis import TimeAxis
from cli.replay.timeline.timeline_rows import Bar, RowGroup, TimelineRow

TICKS = 4
"""Parts of the width between times that are written down; more would not fit on a phone."""

MIN_LABEL_WIDTH = 0.035
"""Of the width: a bar that is narrower has no room for a word."""


def render_groups(groups: Sequence[RowGroup], axis: TimeAxis) -> Iterator[str]:
    """Axis, bands, rows, bars."""
    yield _axis(axis)
    for band in groups:
        yield f'<section class="band" aria-label="{escape(band.name)}"><h3>{escape(band.name)}</h3>'
        for row in band.rows:
            yield _row(row, axis)
        yield "</section>"


def table(groups: Iterable[RowGroup]) -> Iterator[str]:
    """A line for each bar."""
    for band in groups:
        for row in band.rows:
            for bar in row.bars:
                end = "" if bar.is_mark else "goes on" if bar.open_end else clock(bar.end)
                cells = (band.name, row.name, clock(bar.begin), end, bar.tooltip)
                yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _axis(axis: TimeAxis) -> str:
    start = axis.when(0.0)
    ticks = []
    for number in range(TICKS + 1):
        place = number / TICKS
        when = axis.when(place)
        last = " last" if number == TICKS else ""
        ticks.append(
            f'<span class="tick{last}" style="left:{place:.2%}">{when:%H:%M:%S}<br>'
            f"+{_length(when - start)}</span>"
        )
    return f'<div class="row axis"><span class="name"></span><div class="track">{"".join(ticks)}</div></div>'


def _row(row: TimelineRow, axis: TimeAxis) -> str:
    pauses = "".join(
        f'<span class="pause" style="left:{it.left:.2%};width:{it.right - it.left:.2%}" '
        f'title="{_length(it.end - it.begin)} in which nothing happened"></span>'
        for it in axis.compressed
    )
    bars = "".join(_bar(bar, axis) for bar in row.bars)
    return (
        f'<div class="row"><span class="name">{escape(row.name)}</span>'
        f'<div class="track">{pauses}{bars}</div></div>'
    )


def _bar(bar: Bar, axis: TimeAxis) -> str:
    left, right = axis.at(bar.begin), axis.at(bar.end)
    told = escape(f"{clock(bar.begin)}: {bar.tooltip}")
    if bar.is_mark:
        return _mark(bar, left, told)
    classes = f"bar {bar.tone}" + (" open" if bar.open_end else "")
    label = escape(bar.label)
    if right - left < MIN_LABEL_WIDTH:
        classes, label = classes + " narrow", ""
    style = f"left:{left:.2%};width:{right - left:.2%}"
    return f'<span class="{classes}" style="{style}" title="{told}">{label}</span>'


def _mark(bar: Bar, position: float, tooltip: str) -> str:
    edge = " first" if position < 0.01 else " last" if position > 0.99 else ""
    mark = f'<span class="mark {bar.tone}{edge}" style="left:{position:.2%}" title="{tooltip}"></span>'
    if not bar.label:
        return mark
    # Beside the mark, on the side that has more room.
    side = f"left:calc({position:.2%} + 1rem)" if position < 0.5 else f"right:calc({1 - position:.2%} + 1rem)"
    return mark + f'<span class="beside {bar.tone}" style="{side}">{escape(bar.label)}</span>'


def _length(length: timedelta) -> str:
    seconds = length.total_seconds()
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 200_000:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86_400:.1f} d"
