"""The timeline: one line for each thing that happened, in order of time.

Says what happened and when; the answers that follow from it are told in `answers`.
"""

from collections.abc import Iterable, Iterator, Sequence

from cli.replay.timeline.events import STATUS_ACTIVITY, Call, Message, Note, ParsedHistory, Wait
from cli.replay.timeline.model import Entry, Lane, RequestSummary, StatusChange, Tone
from cli.replay.timeline.payloads import number_in, text_in, time_in
from cli.replay.timeline.status_changes import status_entries
from workflows.workspace.events import BoxEventKind
from workflows.workspace.messages import WORKFLOW_TYPE
from workflows.workspace.requests import OutcomeKind

_AWS = (
    "fence_instances",
    "launch",
    "address",
    "remove_address",
    "evict",
    "detach_volume",
    "snapshot_volume",
    "attach_volume",
    "delete_volume",
)
"""Activities that call EC2 or Route 53."""

_BOX_EVENTS = {
    BoxEventKind.REGISTERED: (
        "its first register call succeeded, and its token was minted with it",
        Tone.GOOD,
    ),
    BoxEventKind.ALIVE: ("a beat with its live token was taken in: the token is in use", Tone.GOOD),
    BoxEventKind.STALE: ("its beats have stopped", Tone.BAD),
    BoxEventKind.CREDENTIAL_LOST: ("its beats carry no live token", Tone.BAD),
    BoxEventKind.SUPERSEDED_CALL: ("a superseded box called, and is to be ended", Tone.BAD),
    BoxEventKind.NOT_PROCESSING: ("its agent does nothing about its work", Tone.BAD),
    BoxEventKind.PROCESSING: ("its agent was seen to process something", Tone.GOOD),
    BoxEventKind.ORPHAN: ("the sweep saw an instance of it that no launch accounts for", Tone.BAD),
    BoxEventKind.UNRECORDED_INSTANCE: (
        "the sweep saw the instance of a launch whose answer was lost",
        Tone.PLAIN,
    ),
}

_OUTCOME_TONES = {
    OutcomeKind.ACCEPTED: Tone.GOOD,
    OutcomeKind.JOINED: Tone.GOOD,
    OutcomeKind.STALE: Tone.IDLE,
    OutcomeKind.DEFERRED: Tone.PLAIN,
    OutcomeKind.REJECTED: Tone.BAD,
}

_ORDER = (
    Lane.RUN,
    Lane.AUDIT,
    Lane.BOX,
    Lane.REQUEST,
    Lane.STEP,
    Lane.AWS,
    Lane.STATUS,
    Lane.ERROR,
    Lane.WAIT,
    Lane.WORK,
)

LATE_EVENT_SECONDS = 1.0
"""News of a box that took longer than this to reach the workflow says how long."""


def entries_of(
    history: ParsedHistory,
    requests: Sequence[RequestSummary],
    undecided: Sequence[Message],
    status_changes: Sequence[StatusChange],
) -> tuple[Entry, ...]:
    """All that happened, oldest first; what happened at one instant stays in the order of the events."""
    told = [
        *(_note(note) for note in history.notes),
        *(_request(request) for request in requests),
        *(_undecided(message, history.workflow_type) for message in undecided),
        *_messages(history.messages),
        *(entry for call in history.calls if call.name != STATUS_ACTIVITY for entry in _call(call)),
        *(_wait(wait) for wait in history.waits),
        *status_entries(status_changes),
        *_failed_records(history.calls),
    ]
    return tuple(sorted(told, key=sort_key))


def sort_key(entry: Entry) -> tuple[object, ...]:
    """By time; at one instant, what was asked before what came of it."""
    return entry.at, _ORDER.index(entry.lane), entry.run or 0, entry.event or 0


def outcome_tone(outcome: OutcomeKind) -> Tone:
    """Whether an outcome is good news for who asked."""
    return _OUTCOME_TONES[outcome]


def requester(request: RequestSummary) -> str:
    """The sender's name, as it was given."""
    return request.requested_by or "somebody unnamed"


def _note(note: Note) -> Entry:
    return Entry(
        at=note.at,
        lane=Lane.RUN,
        text=note.text,
        tone=Tone.BAD if note.bad else Tone.PLAIN,
        run=note.run,
        event=note.event,
    )


def _request(request: RequestSummary) -> Entry:
    observed = request.observed_generation
    about = f" about generation {observed}" if observed is not None else ""
    forced = ", forced" if request.force else ""
    reason = f" ({request.reason})" if request.reason else ""
    retry = f"; ask again at {request.retry_at:%H:%M:%S}" if request.retry_at else ""
    details = [("request ID", request.request_id)]
    if request.arrived_at is not None:
        details.append(("reached the workflow", f"{request.arrived_at:%H:%M:%S.%f}"[:-3]))
    else:
        details.append(("came", "from the lifecycle itself, or before this history begins"))
    if request.served_at is not None:
        took = (request.served_at - request.decided_at).total_seconds()
        details.append(("served", f"{request.served_at:%H:%M:%S.%f}"[:-3] + f", {took:.3f} s later"))
    return Entry(
        at=request.decided_at,
        lane=Lane.REQUEST,
        text=(
            f"{request.kind} by {requester(request)}{about}{forced}{reason}: "
            f"{str(request.outcome).upper()} — {request.detail}{retry}"
        ),
        tone=outcome_tone(request.outcome),
        run=request.run,
        event=request.event,
        details=tuple(details),
    )


def _undecided(message: Message, workflow_type: str) -> Entry:
    by = text_in(message.arguments, "requested_by")
    told = "; what became of it is not in this history" if workflow_type == WORKFLOW_TYPE else ""
    return Entry(
        at=message.at,
        lane=Lane.REQUEST,
        text=message.name + (f" by {by}" if by else "") + " arrives" + told,
        run=message.run,
        event=message.event,
    )


def _messages(messages: Iterable[Message]) -> Iterator[Entry]:
    for message in messages:
        if message.name == "box_changed":
            yield _box_event(message)
        elif message.name == "freeze":
            by = text_in(message.arguments, "requested_by") or "somebody unnamed"
            reason = text_in(message.arguments, "reason")
            yield Entry(
                at=message.at,
                lane=Lane.REQUEST,
                text=f"freeze by {by} for {message.arguments.get('seconds', 'the usual')} s"
                + (f" ({reason})" if reason else ""),
                run=message.run,
                event=message.event,
            )


def _box_event(message: Message) -> Entry:
    kind, detail = text_in(message.arguments, "kind"), text_in(message.arguments, "detail")
    known = next((fact for fact in BoxEventKind if fact == kind), None)
    meaning, tone = _BOX_EVENTS[known] if known else ("this release does not know the word", Tone.PLAIN)
    at = time_in(message.arguments, "at") or message.at
    late = (message.at - at).total_seconds()
    heard = f"; heard of {late:.1f} s later" if late > LATE_EVENT_SECONDS else ""
    return Entry(
        at=at,
        lane=Lane.BOX,
        text=f"generation {number_in(message.arguments, 'generation')} is {kind}: {meaning}"
        + (f" ({detail})" if detail else "")
        + heard,
        tone=tone,
        run=message.run,
        event=message.event,
        details=(("reached the workflow", f"{message.at:%H:%M:%S.%f}"[:-3]), ("clock", "PostgreSQL's")),
    )


def _call(call: Call) -> Iterator[Entry]:
    """A line for what came of it; one for its beginning where nothing has."""
    lane = Lane.AWS if call.name in _AWS else Lane.STEP
    details = [("begun", f"{call.scheduled_at:%H:%M:%S.%f}"[:-3]), ("activity", call.activity_id)]
    if call.attempt > 1:
        details += [("attempts", str(call.attempt)), ("the one before failed", call.previous_failure)]
        # Its last failure is known only with its successor's success: when it failed is not recorded.
    tries = f", after {call.attempt - 1} failed: {call.previous_failure}" if call.attempt > 1 else ""
    if call.ended_at is None:
        yield Entry(
            at=call.scheduled_at,
            lane=lane,
            text=f"{_title(call)} begins; its end is not in this history",
            run=call.run,
            event=call.event,
        )
        return
    took = (call.ended_at - call.scheduled_at).total_seconds()
    details.append(("took", f"{took:.3f} s"))
    told = f" FAILED: {call.problem}" if call.problem else f" done{_result(call)}"
    yield Entry(
        at=call.ended_at,
        lane=lane,
        text=_title(call) + told + (f" [{took:.3f} s{tries}]"),
        tone=Tone.BAD if call.problem else Tone.PLAIN,
        run=call.run,
        event=call.ended_event,
        details=tuple(details),
    )


def _failed_records(calls: Iterable[Call]) -> Iterator[Entry]:
    for call in calls:
        if call.name == STATUS_ACTIVITY and call.problem and call.ended_at:
            yield Entry(
                at=call.ended_at,
                lane=Lane.ERROR,
                text=f"the record could not be written: {call.problem}",
                tone=Tone.BAD,
                run=call.run,
                event=call.ended_event,
            )


def _title(call: Call) -> str:
    attempt = f", attempt {call.arguments['attempt']}" if "attempt" in call.arguments else ""
    return call.name + (f" (generation {call.generation}{attempt})" if call.generation is not None else "")


def _result(call: Call) -> str:
    told = {
        key: value
        for key, value in call.result.items()
        if value not in (None, "", [], False) and key != "timings"
    }
    told.pop("generation", None)
    details = ", ".join(f"{key}={_short(value)}" for key, value in told.items())
    return f": {details}" if details else ""


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 160 else text[:159] + "…"


def _wait(wait: Wait) -> Entry:
    how = "fired" if wait.fired else "cancelled: something came before" if wait.end else "still running"
    return Entry(
        at=wait.begin,
        lane=Lane.WAIT,
        text=f"waits for {wait.summary or 'its time'}, at most until {wait.until:%H:%M:%S.%f}"[:-3]
        + f" ({how})",
        tone=Tone.IDLE,
        run=wait.run,
        event=wait.event,
    )
