"""Renders the timeline as one self-contained HTML page: answers, chart and entries.

The template escapes all values; the page's policy allows only its own script.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined

from cli.replay.timeline.answers import answers
from cli.replay.timeline.axis import time_axis
from cli.replay.timeline.model import Entry, Lane, Timeline, clock
from cli.replay.timeline.render_text import verdict_text
from cli.replay.timeline.states import snapshot_after
from cli.replay.timeline.timeline_rows import instants, row_groups
from workers.history.state_snapshot import StateSnapshot

LANE_LABELS = {
    Lane.REQUEST: "requests",
    Lane.STEP: "steps",
    Lane.AWS: "AWS calls",
    Lane.BOX: "box events",
    Lane.STATUS: "phases",
    Lane.ERROR: "errors",
    Lane.WAIT: "waits",
    Lane.RUN: "runs",
    Lane.AUDIT: "register API",
    Lane.WORK: "delegations",
}

TICKS = 4
"""Sections of the axis between two labels; a phone has no room for more."""

MIN_LABEL_WIDTH = 0.035
"""Share of the chart's width; a narrower bar has no room for its label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """An entry as the page shows it."""

    entry: Entry
    day: date | None
    """The date, if the entry is the first of a day."""
    since: float
    """Seconds since the first entry."""
    position: float
    snapshot: StateSnapshot | None
    repeated: bool
    """Whether the previous entry has the same snapshot."""

    @property
    def details(self) -> tuple[tuple[str, str], ...]:
        """The entry's details, with its event."""
        event = (
            () if self.entry.event is None else (("event", f"{self.entry.event} of run {self.entry.run}"),)
        )
        return (*event, *self.entry.details)


def render(timeline: Timeline) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("cli.replay.timeline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "duration": _duration, "percent": lambda share: f"{share:.2%}"}
    script = files("cli.replay.timeline").joinpath("templates", "page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    axis = time_axis(instants(timeline))
    return environment.get_template("page.html").render(
        script=script,
        script_hash=f"sha256-{digest}",
        timeline=timeline,
        span_text=_span(timeline),
        answers=answers(timeline),
        verdict_text=verdict_text,
        axis=axis,
        ticks=[number / TICKS for number in range(TICKS + 1)],
        min_label_width=MIN_LABEL_WIDTH,
        groups=row_groups(timeline),
        lanes=[lane for lane in Lane if any(entry.lane is lane for entry in timeline.entries)],
        lane_labels=LANE_LABELS,
        lines=_lines(timeline, axis.at),
    )


def _span(timeline: Timeline) -> str:
    length = (timeline.end - timeline.begin).total_seconds()
    same_day = timeline.end.date() == timeline.begin.date()
    end = clock(timeline.end) if same_day else f"{timeline.end:%Y-%m-%d} {clock(timeline.end)}"
    still = "" if timeline.closed else "; the workflow is still running"
    return f"{timeline.begin:%Y-%m-%d} {clock(timeline.begin)} to {end} UTC, {length:,.1f} s{still}"


def _lines(timeline: Timeline, position: Callable[[datetime], float]) -> Iterator[_Line]:
    day: date | None = None
    shown: StateSnapshot | None = None
    for entry in timeline.entries:
        snapshot = snapshot_after(entry, timeline.snapshots)
        yield _Line(
            entry=entry,
            day=entry.at.date() if entry.at.date() != day else None,
            since=(entry.at - timeline.entries[0].at).total_seconds(),
            position=position(entry.at),
            snapshot=snapshot,
            repeated=snapshot is shown,
        )
        day, shown = entry.at.date(), snapshot


def _duration(length: timedelta) -> str:
    seconds = length.total_seconds()
    for limit, unit, form in ((100, 1, "{:.1f} s"), (6000, 60, "{:.0f} min"), (200_000, 3600, "{:.1f} h")):
        if seconds < limit:
            return form.format(seconds / unit)
    return f"{seconds / 86_400:.1f} d"
