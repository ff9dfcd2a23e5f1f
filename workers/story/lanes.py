"""The story as lanes: bars from an instant to another, and marks, row by row.

Says what lies beside what; how it looks is the page's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from workers.story.model import Asked, BoxLife, Entry, Lane, Standing, Story, Tone
from workers.story.standings import tone_of
from workers.story.timeline import outcome_tone, who
from workflows.state import ConditionStatus, ConditionType

SINGLE_REQUESTS = 12
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
    told: str
    """The whole of it, in a sentence."""
    tone: Tone = Tone.PLAIN
    open_end: bool = False
    """It went on when the history ended."""

    @property
    def is_mark(self) -> bool:
        """Whether it has no length."""
        return self.begin == self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Bars that do not overlap."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Rows about the same thing."""

    name: str
    rows: tuple[Row, ...]


def bands(story: Story) -> tuple[Band, ...]:
    """All that is drawn, from the requests to the conditions; what is empty is left out."""
    found = (
        Band(name="Requests", rows=_requests(story)),
        Band(name="Workspace", rows=(_phases(story.standings, story.end),)),
        Band(name="Instance", rows=_stacked("boxes", _boxes(story.boxes, story.end))),
        Band(name="Registration", rows=(Row(name="token", bars=tuple(_tokens(story))),)),
        Band(name="DNS", rows=(Row(name="address", bars=tuple(_addresses(story))),)),
        Band(name="Conditions", rows=tuple(_conditions(story.standings, story.end))),
        Band(name="Waits", rows=(_marks("timers", story.entries, Lane.WAIT),)),
        Band(name="Register API", rows=_by_tone("calls", story.entries, Lane.AUDIT)),
        Band(name="Delegations", rows=(_marks("work", story.entries, Lane.WORK),)),
    )
    kept = (Band(name=band.name, rows=tuple(row for row in band.rows if row.bars)) for band in found)
    return tuple(band for band in kept if band.rows)


def _requests(story: Story) -> tuple[Row, ...]:
    if len(story.asked) <= SINGLE_REQUESTS:
        return tuple(Row(name=who(request), bars=(_request(request),)) for request in story.asked)
    outcomes = dict.fromkeys(request.outcome for request in story.asked)
    return tuple(
        Row(
            name=f"{sum(request.outcome is outcome for request in story.asked)} {outcome}",
            bars=tuple(_point(_request(request)) for request in story.asked if request.outcome is outcome),
        )
        for outcome in outcomes
    )


def _request(request: Asked) -> Bar:
    end = request.served_at or request.decided_at
    served = f", served at {end:%H:%M:%S}" if request.served_at else ""
    return Bar(
        begin=request.decided_at,
        end=end,
        label=f"{request.kind}: {request.outcome}",
        told=f"{request.kind} by {who(request)}: {request.outcome} — {request.detail}{served}",
        tone=outcome_tone(request.outcome),
    )


def _point(bar: Bar) -> Bar:
    return Bar(begin=bar.begin, end=bar.begin, label="", told=bar.told, tone=bar.tone)


def _phases(standings: Sequence[Standing], end: datetime) -> Row:
    def said(standing: Standing) -> tuple[str, Tone, str]:
        text = f"{standing.phase}, generation {standing.generation}"
        return str(standing.phase), tone_of(standing.phase), text

    return Row(name="phase", bars=tuple(_spans(standings, end, said)))


def _conditions(standings: Sequence[Standing], end: datetime) -> Iterator[Row]:
    for type_ in ConditionType:

        def said(standing: Standing, type_: ConditionType = type_) -> tuple[str, Tone, str] | None:
            for it in standing.conditions:
                if it.type is type_:
                    return it.reason, _STATUS_TONES[it.status], f"{it.type} is {it.status}: {it.message}"
            return None

        yield Row(name=type_, bars=tuple(_spans(standings, end, said)))


def _spans(
    standings: Sequence[Standing],
    end: datetime,
    said: Callable[[Standing], tuple[str, Tone, str] | None],
) -> Iterator[Bar]:
    """A bar for as long as the same is said."""
    since: datetime | None = None
    saying: tuple[str, Tone, str] | None = None
    for standing in standings:
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
    return Bar(begin=begin, end=end, label=label, told=told, tone=tone, open_end=open_end)


def _boxes(lives: Iterable[BoxLife], end: datetime) -> Iterator[Bar]:
    for life in lives:
        gone = f"gone at {life.end:%H:%M:%S}: {life.ended_by}" if life.end else "still there at the end"
        yield Bar(
            begin=life.begin,
            end=life.end or max(end, life.begin),
            label=f"generation {life.generation} · {life.instance_id}",
            told=f"{life.instance_id} of generation {life.generation}, from {life.begin:%H:%M:%S}; {gone}",
            tone=Tone.GOOD if life.end is None else Tone.PLAIN,
            open_end=life.end is None,
        )


def _tokens(story: Story) -> Iterator[Bar]:
    """None yet, minted, in use: for each generation from its opening to its end."""
    for generation in story.generations:
        end, mark = generation.ended_at or story.end, f"generation {generation.number}"
        instants = (
            (generation.opened_at, "no token yet", Tone.IDLE, "its box has not registered"),
            (generation.registered_at, "minted", Tone.PLAIN, "its box registered, which minted the token"),
            (generation.beating_at, "token in use", Tone.GOOD, "its box beat with the token"),
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
                told=f"{mark}: {told}",
                tone=tone,
                open_end=generation.ended_at is None and index + 1 == len(reached),
            )


def _addresses(story: Story) -> Iterator[Bar]:
    written = [it for it in story.generations if it.addressed_at is not None]
    for index, generation in enumerate(written):
        following = written[index + 1].addressed_at if index + 1 < len(written) else None
        begin, end = generation.addressed_at, following or story.end
        if begin is not None:
            yield Bar(
                begin=begin,
                end=max(end, begin),
                label=f"generation {generation.number}",
                told=f"the DNS name points to generation {generation.number}'s box since {begin:%H:%M:%S}",
                open_end=following is None,
            )


def _marks(name: str, entries: Iterable[Entry], lane: Lane) -> Row:
    return Row(name=name, bars=tuple(_mark(entry) for entry in entries if entry.lane is lane))


def _by_tone(name: str, entries: Iterable[Entry], lane: Lane) -> tuple[Row, ...]:
    told = [entry for entry in entries if entry.lane is lane]
    rows = ((Tone.GOOD, name), (Tone.PLAIN, name), (Tone.IDLE, name), (Tone.BAD, "refused"))
    return tuple(
        Row(name=title, bars=tuple(_mark(entry) for entry in told if entry.tone is tone))
        for tone, title in rows
    )


def _mark(entry: Entry) -> Bar:
    return Bar(begin=entry.at, end=entry.at, label="", told=entry.text, tone=entry.tone)


def _stacked(name: str, bars: Iterable[Bar]) -> tuple[Row, ...]:
    """As few rows as there are bars at once: two boxes at a time would stand in two rows."""
    rows: list[list[Bar]] = []
    for bar in sorted(bars, key=lambda bar: bar.begin):
        free = next((row for row in rows if row[-1].end <= bar.begin), None)
        if free is None:
            rows.append([bar])
        else:
            free.append(bar)
    return tuple(Row(name=name, bars=tuple(row)) for row in rows)


def instants(story: Story) -> Iterator[datetime]:
    """All times that something happened at."""
    yield story.begin
    yield story.end
    yield from (entry.at for entry in story.entries)
    for generation in story.generations:
        yield generation.asked_at
