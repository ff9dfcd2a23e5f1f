"""The story as one page that needs nothing else: the answers, the drawing, the timeline.

Builds text. Everything from the history is escaped, and the page allows no script but its own.
"""

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime
from html import escape
from importlib.resources import files
from string import Template

from cli.replay.timeline.answers import Answer, answers, clock
from cli.replay.timeline.axis import TimeAxis, time_axis
from cli.replay.timeline.html import render_groups, table
from cli.replay.timeline.model import Entry, Lane, Timeline, Tone
from cli.replay.timeline.render_text import verdict_text
from cli.replay.timeline.states import describe_state, snapshot_after
from cli.replay.timeline.timeline_rows import instants, row_groups
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace import conditions

_LANE_LABELS = {
    Lane.REQUEST: "requests",
    Lane.STEP: "steps",
    Lane.AWS: "AWS calls",
    Lane.BOX: "news of the box",
    Lane.STATUS: "phases",
    Lane.ERROR: "errors",
    Lane.WAIT: "waits",
    Lane.RUN: "runs",
    Lane.AUDIT: "register API",
    Lane.WORK: "delegations",
}


def render(timeline: Timeline) -> str:
    """The page."""
    here = files("cli.replay.timeline")
    script = here.joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    there = [lane for lane in Lane if any(entry.lane is lane for entry in timeline.entries)]
    axis, drawing = time_axis(instants(timeline)), row_groups(timeline)
    squeezed = ", but for striped pauses, in which nothing happened" if axis.compressed else ""
    return Template(here.joinpath("page.html").read_text("utf-8")).substitute(
        script=script,
        script_hash=f"sha256-{digest}",
        title=escape(f"What happened to {timeline.workspace_id}"),
        span=escape(_span(timeline)),
        verdicts="\n".join(_verdicts(timeline)),
        answers="\n".join(_answer(answer) for answer in answers(timeline)),
        legend=escape(
            f"To scale{squeezed}. Diamonds are instants; a double edge: it goes on. "
            "Green is well, red is not; of conditions: green is true, red false, hollow unknown."
        ),
        lanes="\n".join(render_groups(drawing, axis)),
        table="\n".join(table(drawing)),
        clocks=escape(
            "Times are UTC: what boxes did by PostgreSQL's clock, all else by Temporal's. "
            + timeline.database_note
        ),
        filters="\n".join(
            f"body:has(#show-{lane}:not(:checked)) .timeline .{lane} {{ display: none; }}" for lane in there
        ),
        choices="\n".join(
            f'<label><input type="checkbox" id="show-{lane}" checked> {_LANE_LABELS[lane]}</label>'
            for lane in there
        ),
        timeline="\n".join(_timeline(timeline, axis)),
    )


def _span(timeline: Timeline) -> str:
    length = (timeline.end - timeline.begin).total_seconds()
    end = (
        f"{timeline.end:%Y-%m-%d} {clock(timeline.end)}"
        if timeline.end.date() != timeline.begin.date()
        else clock(timeline.end)
    )
    still = "" if timeline.closed else "; the workflow goes on"
    return f"{timeline.begin:%Y-%m-%d} {clock(timeline.begin)} to {end} UTC, {length:,.1f} s{still}"


def _verdicts(timeline: Timeline) -> Iterator[str]:
    for verdict in timeline.verdicts:
        tone = Tone.GOOD if verdict.problem is None else Tone.BAD
        which = f"Run {verdict.run} of {len(timeline.verdicts)}, {verdict.events} events"
        yield f'<p class="verdict {tone}">{escape(f"{which}: {verdict_text(verdict)}")}</p>'


def _answer(answer: Answer) -> str:
    lines = []
    for line in answer.lines:
        at = f"<time>{clock(line.at)}</time>" if line.at else "<span></span>"
        share = ""
        if line.share is not None:
            share = f'<span class="share" aria-hidden="true"><i style="width:{line.share:.2%}"></i></span>'
        lines.append(f'<li>{at}<span class="text {line.tone}">{escape(line.text)}</span>{share}</li>')
    short = escape(answer.short[:1].upper() + answer.short[1:])
    return (
        f'<div class="answer"><h3>{escape(answer.question)}</h3>\n<p>{short}.</p>\n'
        f"<ul>\n{chr(10).join(lines)}\n</ul></div>"
    )


def _timeline(timeline: Timeline, axis: TimeAxis) -> Iterator[str]:
    if not timeline.entries:
        return
    start, day, shown = timeline.entries[0].at, None, None
    for entry in timeline.entries:
        if entry.at.date() != day:
            day = entry.at.date()
            yield f'<li class="day">{day}</li>'
        moment = snapshot_after(entry, timeline.snapshots)
        yield _entry(entry, start, axis.at(entry.at), moment, repeated=moment is shown)
        shown = moment


def _entry(
    entry: Entry, start: datetime, place: float, snapshot: StateSnapshot | None, *, repeated: bool
) -> str:
    details = list(entry.details)
    if entry.event is not None:
        details.insert(0, ("event", f"{entry.event} of run {entry.run}"))
    more = _list(details) + _state(snapshot, repeated=repeated)
    return (
        f'<li class="{entry.lane} {entry.tone}"><details><summary data-place="{place:.4f}">'
        f"<time>{clock(entry.at)}</time>"
        f'<span class="since">+{(entry.at - start).total_seconds():.3f} s</span>'
        f'<span class="lane">{entry.lane}</span><span class="text">{escape(entry.text)}</span></summary>'
        f'<div class="more">{more}</div></details></li>'
    )


def _state(snapshot: StateSnapshot | None, *, repeated: bool) -> str:
    if snapshot is None:
        return ""
    state = snapshot.state
    place = f"event {snapshot.event} of run {snapshot.run}"
    heading = f"Then: {conditions.phase(state)}, generation {state.generation} ({place})"
    if repeated:
        return f"<h4>{escape(heading)}, as in the line before</h4>"
    return f"<h4>{escape(heading)}</h4>" + _list(describe_state(snapshot))


def _list(pairs: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs)
    return f"<dl>{told}</dl>" if told else ""
