"""Parses the events of histories into activity calls, messages, timers and notes about runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from cli.replay.timeline.payloads import first_object, text

STATUS_ACTIVITY = "record_status"
"""The activity that writes the workspace record; its arguments contain requests, phase and conditions."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One activity, from its scheduling to its end."""

    run: int
    event: int
    name: str
    activity_id: str
    arguments: dict[str, object]
    scheduled_at: datetime
    started_at: datetime | None = None
    """The start of the last attempt."""
    attempt: int = 1
    previous_failure: str = ""
    """The failure of the attempt before the last one."""
    ended_at: datetime | None = None
    ended_event: int | None = None
    result: dict[str, object] = field(default_factory=dict)
    problem: str = ""
    """Its failure; empty if it succeeded."""

    @property
    def generation(self) -> int | None:
        """The generation in its result or arguments."""
        number = self.result.get("generation", self.arguments.get("generation"))
        return number if isinstance(number, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A signal or an update."""

    run: int
    event: int
    at: datetime
    name: str
    update: bool
    arguments: dict[str, object]
    response: dict[str, object] | None = None
    """The result of an update."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A timer."""

    run: int
    event: int
    begin: datetime
    until: datetime
    """When it fires unless it is cancelled."""
    end: datetime | None
    fired: bool
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An event of the run itself."""

    run: int
    event: int
    at: datetime
    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedHistory:
    """The parsed runs of a chain, oldest first."""

    workflow_id: str
    workflow_type: str
    runs: int
    events: int
    begin: datetime
    end: datetime
    calls: tuple[Call, ...]
    messages: tuple[Message, ...]
    waits: tuple[Wait, ...]
    notes: tuple[Note, ...]
    carried: dict[str, object]
    """The state that the first run received from a run that is not part of this history."""
    closed: bool
    """Whether the last run is closed."""


def parse_history(runs: Sequence[Sequence[HistoryEvent]]) -> ParsedHistory:
    """Parse the runs of one chain, oldest first; each has at least one event."""
    first = runs[0][0].workflow_execution_started_event_attributes
    parsers = [_RunParser(number) for number in range(1, len(runs) + 1)]
    for parser, events in zip(parsers, runs, strict=True):
        parser.read(events)
    times = [_at(event) for events in runs for event in events]
    carried = first_object(first.input).get("carried") if first.continued_execution_run_id else None
    return ParsedHistory(
        workflow_id=first.workflow_id,
        workflow_type=first.workflow_type.name,
        runs=len(runs),
        events=len(times),
        begin=min(times),
        end=max(times),
        calls=tuple(call for parser in parsers for call in parser.calls.values()),
        messages=tuple(message for parser in parsers for message in parser.messages.values()),
        waits=tuple(wait for parser in parsers for wait in parser.waits.values()),
        notes=tuple(note for parser in parsers for note in parser.notes),
        carried=carried if isinstance(carried, dict) else {},
        closed=parsers[-1].closed,
    )


class _RunParser:
    """Parses one run."""

    def __init__(self, run: int) -> None:
        self.run = run
        self.calls: dict[int, Call] = {}
        self.messages: dict[int, Message] = {}
        self.waits: dict[int, Wait] = {}
        self.notes: list[Note] = []
        self.closed = False

    def read(self, events: Iterable[HistoryEvent]) -> None:
        for event in events:
            self._activity(event)
            self._message(event)
            self._timer(event)
            self._run(event)

    def _activity(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                scheduled = event.activity_task_scheduled_event_attributes
                self.calls[event.event_id] = Call(
                    run=self.run,
                    event=event.event_id,
                    name=scheduled.activity_type.name,
                    activity_id=scheduled.activity_id,
                    arguments=first_object(scheduled.input),
                    scheduled_at=_at(event),
                )
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                started = event.activity_task_started_event_attributes
                call = self.calls[started.scheduled_event_id]
                call.started_at, call.attempt = _at(event), started.attempt
                call.previous_failure = _failure(started.last_failure) if started.attempt > 1 else ""
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                self._end(completed.scheduled_event_id, event).result = first_object(completed.result)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                self._end(failed.scheduled_event_id, event).problem = _failure(failed.failure)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                timed_out = event.activity_task_timed_out_event_attributes
                self._end(timed_out.scheduled_event_id, event).problem = "timed out"
            case EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED:
                canceled = event.activity_task_canceled_event_attributes
                self._end(canceled.scheduled_event_id, event).problem = "cancelled"
            case _:
                return

    def _end(self, scheduled: int, event: HistoryEvent) -> Call:
        call = self.calls[scheduled]
        call.ended_at, call.ended_event = _at(event), event.event_id
        return call

    def _message(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                signal = event.workflow_execution_signaled_event_attributes
                self._received(
                    event, _at(event), signal.signal_name, first_object(signal.input), update=False
                )
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
                update = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
                self._received(event, _at(event), update.name, first_object(update.args), update=True)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                done = event.workflow_execution_update_completed_event_attributes
                message = self.messages.get(done.accepted_event_id)
                if message is not None:
                    response = first_object(done.outcome.success)
                    self.messages[message.event] = replace(message, response=response)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                self._received(event, _at(event), "cancel", {}, update=False)
            case _:
                return

    def _received(
        self, event: HistoryEvent, at: datetime, name: str, arguments: dict[str, object], *, update: bool
    ) -> None:
        self.messages[event.event_id] = Message(
            run=self.run, event=event.event_id, at=at, name=name, update=update, arguments=arguments
        )

    def _timer(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_TIMER_STARTED:
                started = event.timer_started_event_attributes
                length = started.start_to_fire_timeout.ToTimedelta()
                self.waits[event.event_id] = Wait(
                    run=self.run,
                    event=event.event_id,
                    begin=_at(event),
                    until=_at(event) + length,
                    end=None,
                    fired=False,
                    summary=text(event.user_metadata.summary),
                )
            case EventType.EVENT_TYPE_TIMER_FIRED:
                self._waited(event.timer_fired_event_attributes.started_event_id, event, fired=True)
            case EventType.EVENT_TYPE_TIMER_CANCELED:
                self._waited(event.timer_canceled_event_attributes.started_event_id, event, fired=False)
            case _:
                return

    def _waited(self, started: int, event: HistoryEvent, *, fired: bool) -> None:
        self.waits[started] = replace(self.waits[started], end=_at(event), fired=fired)

    def _run(self, event: HistoryEvent) -> None:
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                continued = event.workflow_execution_started_event_attributes.continued_execution_run_id
                self._note(event, "continues in a new run" if continued else "the workflow starts")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                self._close(event, "the workflow ends")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                self.closed = True
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
                ended = event.workflow_execution_failed_event_attributes
                self._close(event, f"the workflow FAILS: {_failure(ended.failure)}", bad=True)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
                self._close(
                    event, "the workflow is TERMINATED by an operator; nothing was cleaned up", bad=True
                )
            case EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                task = event.workflow_task_failed_event_attributes
                self._note(event, f"a workflow task FAILED: {_failure(task.failure)}", bad=True)
            case EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
                self._note(event, "a workflow task timed out: no worker completed it", bad=True)
            case _:
                return

    def _note(self, event: HistoryEvent, text: str, *, bad: bool = False) -> None:
        self.notes.append(Note(run=self.run, event=event.event_id, at=_at(event), text=text, bad=bad))

    def _close(self, event: HistoryEvent, text: str, *, bad: bool = False) -> None:
        self.closed = True
        self._note(event, text, bad=bad)


def _at(event: HistoryEvent) -> datetime:
    return event.event_time.ToDatetime(tzinfo=UTC)


def _failure(failure: Failure) -> str:
    kind = failure.application_failure_info.type
    return f"{kind}: {failure.message}" if kind else failure.message
