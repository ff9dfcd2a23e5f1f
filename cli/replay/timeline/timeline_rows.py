"""The story as lanes: bars from an instant to another, and marks, row by row.

Says what lies beside what; how it looks is the page's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from cli.replay.timeline.lines import outcome_tone, requester
from cli.replay.timeline.model import BoxLifetime, Entry, Lane, RequestSummary, StatusChange, Timeline, Tone
from cli.replay.timeline.status_changes import tone_of
from workflows.workspace.state import ConditionStatus, ConditionType

MAX_REQUEST_ROWS = 12
"""More requests than this share rows, by their outcomes."""

_STATUS_TONES = {
    ConditionStatus.TRUE: Tone.GOOD,
    ConditionStatus.FALSE: Tone.BAD,
    ConditionStatus.UNKNOWN: Tone.IDLE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Something that lasted; a mark, if it ends where it begins."""

    begin: datetime
    end: datetime
    label: str
    tooltip: str
    """The whole of it, in a sentence."""
    tone: Tone = Tone.PLAIN
    open_end: bool = False
    """It went on when the history ended."""

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
    """Rows about the same thing."""

    name: str
    rows: tuple[TimelineRow, ...]


def row_groups(timeline: Timeline) -> tuple[RowGroup, ...]:
    """All that is drawn, from the requests to the conditions; what is empty is left out."""
    found = (
        RowGroup(name="Requests", rows=_requests(timeline)),
        RowGroup(name="Workspace", rows=(_phases(timeline.status_changes, timeline.end),)),
        RowGroup(name="Instance", rows=_stacked("boxes", _boxes(timeline.boxes, timeline.end))),
        RowGroup(name="Registration", rows=(TimelineRow(name="token", bars=tuple(_tokens(timeline))),)),
        RowGroup(name="DNS", rows=(TimelineRow(name="address", bars=tuple(_addresses(timeline))),)),
        RowGroup(name="Conditions", rows=tuple(_conditions(timeline.status_changes, timeline.end))),
        RowGroup(name="Waits", rows=(_marks("timers", timeline.entries, Lane.WAIT),)),
        RowGroup(name="Register API", rows=_by_tone("calls", timeline.entries, Lane.AUDIT)),
        RowGroup(name="Delegations", rows=(_marks("work", timeline.entries, Lane.WORK),)),
    )
    kept = (RowGroup(name=band.name, rows=tuple(row for row in band.rows if row.bars)) for band in found)
    return tuple(band for band in kept if band.rows)


def _requests(timeline: Timeline) -> tuple[TimelineRow, ...]:
    if len(timeline.requests) <= MAX_REQUEST_ROWS:
        return tuple(
            TimelineRow(name=requester(request), bars=(_request(request),)) for request in timeline.requests
        )
    outcomes = dict.fromkeys(request.outcome for request in timeline.requests)
    return tuple(
        TimelineRow(
            name=f"{sum(request.outcome is outcome for request in timeline.requests)} {outcome}",
            bars=tuple(
                _point(_request(request)) for request in timeline.requests if request.outcome is outcome
            ),
        )
        for outcome in outcomes
    )


def _request(request: RequestSummary) -> Bar:
    end = request.served_at or request.decided_at
    served = f", served at {end:%H:%M:%S}" if request.served_at else ""
    return Bar(
        begin=request.decided_at,
        end=end,
        label=f"{request.kind}: {request.outcome}",
        tooltip=f"{request.kind} by {requester(request)}: {request.outcome} — {request.detail}{served}",
        tone=outcome_tone(request.outcome),
    )


def _point(bar: Bar) -> Bar:
    return Bar(begin=bar.begin, end=bar.begin, label="", tooltip=bar.tooltip, tone=bar.tone)


def _phases(status_changes: Sequence[StatusChange], end: datetime) -> TimelineRow:
    def said(change: StatusChange) -> tuple[str, Tone, str]:
        text = f"{change.phase}, generation {change.generation}"
        return str(change.phase), tone_of(change.phase), text

    return TimelineRow(name="phase", bars=tuple(_spans(status_changes, end, said)))


def _conditions(status_changes: Sequence[StatusChange], end: datetime) -> Iterator[TimelineRow]:
    for type_ in ConditionType:

        def said(change: StatusChange, type_: ConditionType = type_) -> tuple[str, Tone, str] | None:
            for it in change.conditions:
                if it.type is type_:
                    return it.reason, _STATUS_TONES[it.status], f"{it.type} is {it.status}: {it.message}"
            return None

        yield TimelineRow(name=type_, bars=tuple(_spans(status_changes, end, said)))


def _spans(
    status_changes: Sequence[StatusChange],
    end: datetime,
    said: Callable[[StatusChange], tuple[str, Tone, str] | None],
) -> Iterator[Bar]:
    """A bar for as long as the same is said."""
    since: datetime | None = None
    saying: tuple[str, Tone, str] | None = None
    for standing in status_changes:
        now = said(standing)
        if now == saying:
            continue
        if saying is not None and since is not None:
            yield _span(since, standing.at, saying)
        since, saying = standing.at, now
    if saying is not None and since is not None:
        yield _span(since, max(end, since), saying, open_end=True)


def _span(begin: datetime, end: datetime, saying: tuple[str, Tone, str], *, open_end: bool = False) -> Bar:
    label, tone, told = saying
    return Bar(begin=begin, end=end, label=label, tooltip=told, tone=tone, open_end=open_end)


def _boxes(lifetimes: Iterable[BoxLifetime], end: datetime) -> Iterator[Bar]:
    for life in lifetimes:
        gone = f"gone at {life.end:%H:%M:%S}: {life.ended_by}" if life.end else "still there at the end"
        yield Bar(
            begin=life.begin,
            end=life.end or max(end, life.begin),
            label=f"generation {life.generation} · {life.instance_id}",
            tooltip=f"{life.instance_id} of generation {life.generation}, from {life.begin:%H:%M:%S}; {gone}",
            tone=Tone.GOOD if life.end is None else Tone.PLAIN,
            open_end=life.end is None,
        )


def _tokens(timeline: Timeline) -> Iterator[Bar]:
    """None yet, minted, in use: for each generation from its opening to its end."""
    for generation in timeline.generations:
        end, mark = generation.ended_at or timeline.end, f"generation {generation.number}"
        instants = (
            (generation.opened_at, "no token yet", Tone.IDLE, "its box has not registered"),
            (generation.registered_at, "minted", Tone.PLAIN, "its box registered, which minted the token"),
            (generation.first_heartbeat_at, "token in use", Tone.GOOD, "its box beat with the token"),
        )
        reached = [
            (at, label, tone, told) for at, label, tone, told in instants if at is not None and at <= end
        ]
        for index, (at, label, tone, told) in enumerate(reached):
            following = reached[index + 1][0] if index + 1 < len(reached) else end
            yield Bar(
                begin=at,
                end=max(following, at),
                label=label,
                tooltip=f"{mark}: {told}",
                tone=tone,
                open_end=generation.ended_at is None and index + 1 == len(reached),
            )


def _addresses(timeline: Timeline) -> Iterator[Bar]:
    written = [it for it in timeline.generations if it.addressed_at is not None]
    for index, generation in enumerate(written):
        following = written[index + 1].addressed_at if index + 1 < len(written) else None
        begin, end = generation.addressed_at, following or timeline.end
        if begin is not None:
            yield Bar(
                begin=begin,
                end=max(end, begin),
                label=f"generation {generation.number}",
                tooltip=f"the DNS name points to generation {generation.number}'s box since {begin:%H:%M:%S}",
                open_end=following is None,
            )


def _marks(name: str, entries: Iterable[Entry], lane: Lane) -> TimelineRow:
    return TimelineRow(name=name, bars=tuple(_mark(entry) for entry in entries if entry.lane is lane))


def _by_tone(name: str, entries: Iterable[Entry], lane: Lane) -> tuple[TimelineRow, ...]:
    told = [entry for entry in entries if entry.lane is lane]
    rows = ((Tone.GOOD, name), (Tone.PLAIN, name), (Tone.IDLE, name), (Tone.BAD, "refused"))
    return tuple(
        TimelineRow(name=title, bars=tuple(_mark(entry) for entry in told if entry.tone is tone))
        for tone, title in rows
    )


def _mark(entry: Entry) -> Bar:
    return Bar(begin=entry.at, end=entry.at, label="", tooltip=entry.text, tone=entry.tone)


def _stacked(name: str, bars: Iterable[Bar]) -> tuple[TimelineRow, ...]:
    """As few rows as there are bars at once: two boxes at a time would stand in two rows."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: bar.begin):
        free = next((row for row in rows if row[-1].end <= bar.begin), None)
        if free is None:
            rows.append([bar])
        else:
            free.append(bar)
    return tuple(TimelineRow(name=name, bars=tuple(row)) for row in rows)


def instants(timeline: Timeline) -> Iterator[datetime]:
    """All times that something happened at."""
    yield timeline.begin
    yield timeline.end
    yield from (entry.at for entry in timeline.entries)
    for generation in timeline.generations:
        yield generation.asked_at
