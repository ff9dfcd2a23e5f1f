"""The entries of a timeline, made from calls, messages, requests, timers and status changes."""

from collections.abc import Iterable, Iterator, Sequence

from cli.replay.timeline.events import STATUS_ACTIVITY, Call, Message, Note, ParsedHistory, Wait
from cli.replay.timeline.model import Entry, Lane, RequestSummary, StatusChange, Tone, clock, requester
from cli.replay.timeline.payloads import number_in, text_in, time_in
from cli.replay.timeline.states import status_entries
from workflows.shared.names import WORKFLOW_TYPE
from workflows.workspace.enums import BoxEventKind
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
        "its first register call succeeded and minted its token",
        Tone.GOOD,
    ),
    BoxEventKind.ALIVE: ("it sent a heartbeat with its token", Tone.GOOD),
    BoxEventKind.STALE: ("it sends no heartbeats", Tone.BAD),
    BoxEventKind.CREDENTIAL_LOST: ("its heartbeats carry no valid token", Tone.BAD),
    BoxEventKind.SUPERSEDED_CALL: ("a superseded box called and is to be terminated", Tone.BAD),
    BoxEventKind.NOT_PROCESSING: ("its agent processes no work", Tone.BAD),
    BoxEventKind.PROCESSING: ("its agent processes work", Tone.GOOD),
    BoxEventKind.ORPHAN: ("the sweep found an instance without a recorded launch", Tone.BAD),
    BoxEventKind.UNRECORDED_INSTANCE: (
        "the sweep found the instance of a launch whose response was lost",
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
"""An event that takes longer to reach the workflow is shown with its delay."""


def entries_of(
    history: ParsedHistory,
    requests: Sequence[RequestSummary],
    undecided: Sequence[Message],
    status_changes: Sequence[StatusChange],
) -> tuple[Entry, ...]:
    """All entries, oldest first; entries at the same time are in the order of their events."""
    entries = [
        *(_note(note) for note in history.notes),
        *(_request(request) for request in requests),
        *(_undecided(message, history.workflow_type) for message in undecided),
        *_messages(history.messages),
        *(entry for call in history.calls if call.name != STATUS_ACTIVITY for entry in _call(call)),
        *(_wait(wait) for wait in history.waits),
        *status_entries(status_changes),
        *_failed_records(history.calls),
    ]
    return tuple(sorted(entries, key=sort_key))


def sort_key(entry: Entry) -> tuple[object, ...]:
    """Sorts by time; at the same time, causes before effects."""
    return entry.at, _ORDER.index(entry.lane), entry.run or 0, entry.event or 0


def outcome_tone(outcome: OutcomeKind) -> Tone:
    """Whether an outcome is good news for the requester."""
    return _OUTCOME_TONES[outcome]


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
    about = f" of generation {observed}" if observed is not None else ""
    forced = ", forced" if request.force else ""
    reason = f" ({request.reason})" if request.reason else ""
    retry = f"; retry at {request.retry_at:%H:%M:%S}" if request.retry_at else ""
    details = [("request ID", request.request_id)]
    if request.arrived_at is not None:
        details.append(("reached the workflow", clock(request.arrived_at)))
    else:
        details.append(("origin", "the workflow itself, or a message before this history begins"))
    if request.served_at is not None:
        took = (request.served_at - request.decided_at).total_seconds()
        details.append(("served", f"{clock(request.served_at)}, {took:.3f} s later"))
    return Entry(
        at=request.decided_at,
        lane=Lane.REQUEST,
        text=(
            f"{request.kind}{about} by {requester(request)}{forced}{reason}: "
            f"{str(request.outcome).upper()} — {request.detail}{retry}"
        ),
        tone=outcome_tone(request.outcome),
        run=request.run,
        event=request.event,
        details=tuple(details),
    )


def _undecided(message: Message, workflow_type: str) -> Entry:
    by = text_in(message.arguments, "requested_by")
    note = "; its outcome is not in this history" if workflow_type == WORKFLOW_TYPE else ""
    return Entry(
        at=message.at,
        lane=Lane.REQUEST,
        text=message.name + (f" by {by}" if by else "") + " arrives" + note,
        run=message.run,
        event=message.event,
    )


def _messages(messages: Iterable[Message]) -> Iterator[Entry]:
    for message in messages:
        if message.name == "box_changed":
            yield _box_event(message)
        elif message.name == "freeze":
            by = text_in(message.arguments, "requested_by") or "an unnamed requester"
            reason = text_in(message.arguments, "reason")
            yield Entry(
                at=message.at,
                lane=Lane.REQUEST,
                text=f"freeze by {by} for {message.arguments.get('seconds', 'the default')} s"
                + (f" ({reason})" if reason else ""),
                run=message.run,
                event=message.event,
            )


def _box_event(message: Message) -> Entry:
    kind, detail = text_in(message.arguments, "kind"), text_in(message.arguments, "detail")
    known = next((it for it in BoxEventKind if it == kind), None)
    meaning, tone = _BOX_EVENTS[known] if known else ("an event of another release", Tone.PLAIN)
    at = time_in(message.arguments, "at") or message.at
    late = (message.at - at).total_seconds()
    delay = f"; received {late:.1f} s later" if late > LATE_EVENT_SECONDS else ""
    return Entry(
        at=at,
        lane=Lane.BOX,
        text=f"generation {number_in(message.arguments, 'generation')} is {kind}: {meaning}"
        + (f" ({detail})" if detail else "")
        + delay,
        tone=tone,
        run=message.run,
        event=message.event,
        details=(("reached the workflow", clock(message.at)), ("clock", "PostgreSQL's")),
    )


def _call(call: Call) -> Iterator[Entry]:
    """An entry for the end of a call; for its begin if the history has no end."""
    lane = Lane.AWS if call.name in _AWS else Lane.STEP
    details = [("scheduled", clock(call.scheduled_at)), ("activity", call.activity_id)]
    if call.attempt > 1:
        details += [("attempts", str(call.attempt)), ("previous failure", call.previous_failure)]
    # The history has the last failure, but not the time of it.
    retries = f", after {call.attempt - 1} failed: {call.previous_failure}" if call.attempt > 1 else ""
    if call.ended_at is None:
        yield Entry(
            at=call.scheduled_at,
            lane=lane,
            text=f"{_title(call)} starts; its end is not in this history",
            run=call.run,
            event=call.event,
        )
        return
    took = (call.ended_at - call.scheduled_at).total_seconds()
    details.append(("took", f"{took:.3f} s"))
    result = f" FAILED: {call.problem}" if call.problem else f" done{_result(call)}"
    yield Entry(
        at=call.ended_at,
        lane=lane,
        text=f"{_title(call)}{result} [{took:.3f} s{retries}]",
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
                text=f"the workspace record could not be written: {call.problem}",
                tone=Tone.BAD,
                run=call.run,
                event=call.ended_event,
            )


def _title(call: Call) -> str:
    attempt = f", attempt {call.arguments['attempt']}" if "attempt" in call.arguments else ""
    return call.name + (f" (generation {call.generation}{attempt})" if call.generation is not None else "")


def _result(call: Call) -> str:
    details = ", ".join(
        f"{key}={_short(value)}"
        for key, value in call.result.items()
        if value not in (None, "", [], False) and key not in ("timings", "generation")
    )
    return f": {details}" if details else ""


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 160 else text[:159] + "…"


def _wait(wait: Wait) -> Entry:
    how = "fired" if wait.fired else "cancelled by an earlier event" if wait.end else "still running"
    return Entry(
        at=wait.begin,
        lane=Lane.WAIT,
        text=f"waits for {wait.summary or 'a timer'}, at most until {clock(wait.until)} ({how})",
        tone=Tone.IDLE,
        run=wait.run,
        event=wait.event,
    )
