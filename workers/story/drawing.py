"""The lanes as HTML, and as a table for those who don't see them.

Places and escapes; what is drawn is decided in `lanes`.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from html import escape

from workers.story.answers import clock
from workers.story.lanes import Band, Bar, Row
from workers.story.scale import Scale

TICKS = 4
"""Parts of the width between times that are written down; more would not fit on a phone."""

NARROW = 0.035
"""Of the width: a bar that is narrower has no room for a word."""


def drawn(bands: Sequence[Band], places: Scale) -> Iterator[str]:
    """Axis, bands, rows, bars."""
    yield _axis(places)
    for band in bands:
        yield f'<section class="band" aria-label="{escape(band.name)}"><h3>{escape(band.name)}</h3>'
        for row in band.rows:
            yield _row(row, places)
        yield "</section>"


def table(bands: Iterable[Band]) -> Iterator[str]:
    """A line for each bar."""
    for band in bands:
        for row in band.rows:
            for bar in row.bars:
                end = "" if bar.is_mark else "goes on" if bar.open_end else clock(bar.end)
                cells = (band.name, row.name, clock(bar.begin), end, bar.told)
                yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _axis(places: Scale) -> str:
    start = places.when(0.0)
    ticks = []
    for number in range(TICKS + 1):
        place = number / TICKS
        when = places.when(place)
        last = " last" if number == TICKS else ""
        ticks.append(
            f'<span class="tick{last}" style="left:{place:.2%}">{when:%H:%M:%S}<br>'
            f"+{_length(when - start)}</span>"
        )
    return f'<div class="row axis"><span class="name"></span><div class="track">{"".join(ticks)}</div></div>'


def _row(row: Row, places: Scale) -> str:
    pauses = "".join(
        f'<span class="pause" style="left:{it.left:.2%};width:{it.right - it.left:.2%}" '
        f'title="{_length(it.end - it.begin)} in which nothing happened"></span>'
        for it in places.squeezed
    )
    bars = "".join(_bar(bar, places) for bar in row.bars)
    return (
        f'<div class="row"><span class="name">{escape(row.name)}</span>'
        f'<div class="track">{pauses}{bars}</div></div>'
    )


def _bar(bar: Bar, places: Scale) -> str:
    left, right = places.at(bar.begin), places.at(bar.end)
    told = escape(f"{clock(bar.begin)}: {bar.told}")
    if bar.is_mark:
        return _mark(bar, left, told)
    classes = f"bar {bar.tone}" + (" open" if bar.open_end else "")
    label = escape(bar.label)
    if right - left < NARROW:
        classes, label = classes + " narrow", ""
    style = f"left:{left:.2%};width:{right - left:.2%}"
    return f'<span class="{classes}" style="{style}" title="{told}">{label}</span>'


def _mark(bar: Bar, place: float, told: str) -> str:
    edge = " first" if place < 0.01 else " last" if place > 0.99 else ""
    mark = f'<span class="mark {bar.tone}{edge}" style="left:{place:.2%}" title="{told}"></span>'
    if not bar.label:
        return mark
    # Beside the mark, on the side that has more room.
    side = f"left:calc({place:.2%} + 1rem)" if place < 0.5 else f"right:calc({1 - place:.2%} + 1rem)"
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
