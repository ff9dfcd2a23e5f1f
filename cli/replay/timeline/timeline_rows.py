"""The rows of the chart: bars for spans of time, and marks for instants."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.replay.timeline.entries import outcome_tone
from cli.replay.timeline.model import (
    BoxLifetime,
    Entry,
    Lane,
    RequestSummary,
    StatusChange,
    Timeline,
    Tone,
    requester,
)
from cli.replay.timeline.states import tone_of
from workflows.workspace.enums import ConditionStatus, ConditionType

MAX_REQUEST_ROWS = 12
"""With more requests, there is a row for each outcome instead of each request."""

_STATUS_TONES = {
    ConditionStatus.TRUE: Tone.GOOD,
    ConditionStatus.FALSE: Tone.BAD,
    ConditionStatus.UNKNOWN: Tone.IDLE,
}

Label = tuple[str, Tone, str]
"""Label, tone and tooltip of a bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A span of time; a mark if it ends where it begins."""

    begin: datetime
    end: datetime
    label: str
    tooltip: str
    tone: Tone = Tone.PLAIN
    open_end: bool = False
    """Whether the span continues after the history ends."""

    @property
    def is_mark(self) -> bool:
        """Whether it has no length."""
        return self.begin == self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineRow:
    """Bars that do not overlap."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Rows of the same subject."""

    name: str
    rows: tuple[TimelineRow, ...]


def row_groups(timeline: Timeline) -> tuple[RowGroup, ...]:
    """All rows of the chart, without empty ones."""
    changes, entries, end = timeline.status_changes, timeline.entries, timeline.end
    groups = (
        ("Requests", _requests(timeline.requests)),
        ("Workspace", [_row("phase", _spans(changes, end, _phase_label))]),
        ("Instance", _stacked("boxes", _boxes(timeline.boxes, end))),
        ("Registration", [_row("token", _tokens(timeline))]),
        ("DNS", [_row("address", _addresses(timeline))]),
        ("Conditions", [_row(it, _spans(changes, end, _condition_label(it))) for it in ConditionType]),
        ("Waits", [_row("timers", _marks(entries, Lane.WAIT))]),
        ("Register API", _calls([entry for entry in entries if entry.lane is Lane.AUDIT])),
        ("Delegations", [_row("work", _marks(entries, Lane.WORK))]),
    )
    kept = (RowGroup(name=name, rows=tuple(row for row in rows if row.bars)) for name, rows in groups)
    return tuple(group for group in kept if group.rows)


def instants(timeline: Timeline) -> Iterator[datetime]:
    """All times at which something happened."""
    yield timeline.begin
    yield timeline.end
    yield from (entry.at for entry in timeline.entries)
    yield from (generation.asked_at for generation in timeline.generations)


def _row(name: str, bars: Iterable[Bar]) -> TimelineRow:
    return TimelineRow(name=name, bars=tuple(bars))


def _mark(at: datetime, tooltip: str, tone: Tone) -> Bar:
    return Bar(begin=at, end=at, label="", tooltip=tooltip, tone=tone)


def _marks(entries: Iterable[Entry], lane: Lane) -> Iterator[Bar]:
    return (_mark(entry.at, entry.text, entry.tone) for entry in entries if entry.lane is lane)


def _requests(requests: Sequence[RequestSummary]) -> list[TimelineRow]:
    if len(requests) <= MAX_REQUEST_ROWS:
        return [_row(requester(request), [_request(request)]) for request in requests]
    rows = []
    for outcome in dict.fromkeys(request.outcome for request in requests):
        bars = [_request(request) for request in requests if request.outcome is outcome]
        rows.append(_row(f"{len(bars)} {outcome}", (_mark(it.begin, it.tooltip, it.tone) for it in bars)))
    return rows


def _request(request: RequestSummary) -> Bar:
    served = f", served at {request.served_at:%H:%M:%S}" if request.served_at else ""
    return Bar(
        begin=request.decided_at,
        end=request.served_at or request.decided_at,
        label=f"{request.kind}: {request.outcome}",
        tooltip=f"{request.kind} by {requester(request)}: {request.outcome} — {request.detail}{served}",
        tone=outcome_tone(request.outcome),
    )


def _phase_label(change: StatusChange) -> Label:
    return str(change.phase), tone_of(change.phase), f"{change.phase}, generation {change.generation}"


def _condition_label(type_: ConditionType) -> Callable[[StatusChange], Label | None]:
    def label(change: StatusChange) -> Label | None:
        for it in change.conditions:
            if it.type is type_:
                return it.reason, _STATUS_TONES[it.status], f"{it.type} is {it.status}: {it.message}"
        return None

    return label


def _spans(
    changes: Sequence[StatusChange], end: datetime, label_of: Callable[[StatusChange], Label | None]
) -> Iterator[Bar]:
    """A bar for each span with the same label; the last one is open."""
    begins: list[tuple[datetime, Label | None]] = []
    for change in changes:
        label = label_of(change)
        if not begins or begins[-1][1] != label:
            begins.append((change.at, label))
    for index, (begin, label) in enumerate(begins):
        if label is not None:
            last = index + 1 == len(begins)
            until = max(end, begin) if last else begins[index + 1][0]
            text, tone, tooltip = label
            yield Bar(begin=begin, end=until, label=text, tooltip=tooltip, tone=tone, open_end=last)


def _boxes(lifetimes: Iterable[BoxLifetime], end: datetime) -> Iterator[Bar]:
    for it in lifetimes:
        fate = f"terminated at {it.end:%H:%M:%S}: {it.ended_by}" if it.end else "still there at the end"
        yield Bar(
            begin=it.begin,
            end=it.end or max(end, it.begin),
            label=f"generation {it.generation} · {it.instance_id}",
            tooltip=f"{it.instance_id} of generation {it.generation}, from {it.begin:%H:%M:%S}; {fate}",
            tone=Tone.GOOD if it.end is None else Tone.PLAIN,
            open_end=it.end is None,
        )


def _tokens(timeline: Timeline) -> Iterator[Bar]:
    """For each generation: no token yet, token minted, token in use."""
    for generation in timeline.generations:
        end = generation.ended_at or timeline.end
        milestones = (
            (generation.opened_at, "no token yet", Tone.IDLE, "the box has not registered"),
            (generation.registered_at, "minted", Tone.PLAIN, "the box registered, which minted the token"),
            (
                generation.first_heartbeat_at,
                "token in use",
                Tone.GOOD,
                "the box sends heartbeats with the token",
            ),
        )
        reached = [it for it in milestones if it[0] is not None and it[0] <= end]
        for index, (at, label, tone, text) in enumerate(reached):
            last = index + 1 == len(reached)
            until = end if last else reached[index + 1][0]
            if at is not None and until is not None:
                yield Bar(
                    begin=at,
                    end=max(until, at),
                    label=label,
                    tooltip=f"generation {generation.number}: {text}",
                    tone=tone,
                    open_end=last and generation.ended_at is None,
                )


def _addresses(timeline: Timeline) -> Iterator[Bar]:
    written = [(it.number, it.addressed_at) for it in timeline.generations if it.addressed_at is not None]
    for index, (number, begin) in enumerate(written):
        last = index + 1 == len(written)
        yield Bar(
            begin=begin,
            end=max(timeline.end if last else written[index + 1][1], begin),
            label=f"generation {number}",
            tooltip=f"the DNS name points to the box of generation {number} since {begin:%H:%M:%S}",
            open_end=last,
        )


def _calls(entries: Sequence[Entry]) -> list[TimelineRow]:
    """A row for each tone, so that refused calls stand apart."""
    names = {Tone.GOOD: "calls", Tone.PLAIN: "calls", Tone.IDLE: "calls", Tone.BAD: "refused"}
    return [
        _row(name, (_mark(it.at, it.text, it.tone) for it in entries if it.tone is tone))
        for tone, name in names.items()
    ]


def _stacked(name: str, bars: Iterable[Bar]) -> list[TimelineRow]:
    """The bars in as few rows as possible without overlap: two boxes at once take two rows."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: bar.begin):
        free = next((row for row in rows if row[-1].end <= bar.begin), None)
        if free is None:
            rows.append([bar])
        else:
            free.append(bar)
    return [_row(name, row) for row in rows]
