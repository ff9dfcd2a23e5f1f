"""A history's events as the things that they tell of: calls, messages, facts, statuses, waits.

Says what stands there, in the order of the events; what it means is told elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from cli.replay.timeline.payloads import first_object, text

STATUS_ACTIVITY = "record_status"
"""The activity that writes the record. What it is given is the best account of requests and phases."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One activity, from being scheduled to its end."""

    run: int
    event: int
    name: str
    activity_id: str
    arguments: dict[str, object]
    scheduled_at: datetime
    started_at: datetime | None = None
    """Of the last attempt."""
    attempt: int = 1
    previous_failure: str = ""
    """How the attempt before the last one failed."""
    ended_at: datetime | None = None
    ended_event: int | None = None
    result: dict[str, object] = field(default_factory=dict)
    problem: str = ""
    """Why it failed; empty if it did not."""

    @property
    def generation(self) -> int | None:
        """The generation that it is about."""
        number = self.result.get("generation", self.arguments.get("generation"))
        return number if isinstance(number, int) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What somebody sent: a signal or an update."""

    run: int
    event: int
    at: datetime
    name: str
    update: bool
    arguments: dict[str, object]
    answer: dict[str, object] | None = None
    """What an update returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A timer."""

    run: int
    event: int
    begin: datetime
    until: datetime
    """When it was to fire."""
    end: datetime | None
    fired: bool
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something about the run itself."""

    run: int
    event: int
    at: datetime
    text: str
    bad: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedHistory:
    """All that the runs of a chain tell, oldest first."""

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
    """The state that the first run here took over from one that is not here."""
    closed: bool
    """Whether the last run has ended."""


def parse_history(runs: Sequence[Sequence[HistoryEvent]]) -> ParsedHistory:
    """The runs of one chain, in order; each has at least its first event."""
    first = runs[0][0].workflow_execution_started_event_attributes
    readers = [_RunParser(number) for number in range(1, len(runs) + 1)]
    for reader, events in zip(readers, runs, strict=True):
        reader.read(events)
    times = [_at(event) for events in runs for event in events]
    carried = first_object(first.input).get("carried") if first.continued_execution_run_id else None
    return ParsedHistory(
        workflow_id=first.workflow_id,
        workflow_type=first.workflow_type.name,
        runs=len(runs),
        events=len(times),
        begin=min(times),
        end=max(times),
        calls=tuple(call for reader in readers for call in reader.calls.values()),
        messages=tuple(message for reader in readers for message in reader.messages.values()),
        waits=tuple(wait for reader in readers for wait in reader.waits.values()),
        notes=tuple(note for reader in readers for note in reader.notes),
        carried=carried if isinstance(carried, dict) else {},
        closed=readers[-1].closed,
    )


class _RunParser:
    """Reads one run."""

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
                self._end(timed_out.scheduled_event_id, event).problem = "it did not end in time"
            case EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELED:
                canceled = event.activity_task_canceled_event_attributes
                self._end(canceled.scheduled_event_id, event).problem = "it was no longer wanted"
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
                asked = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
                self._received(event, _at(event), asked.name, first_object(asked.args), update=True)
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED:
                done = event.workflow_execution_update_completed_event_attributes
                message = self.messages.get(done.accepted_event_id)
                if message is not None:
                    self.messages[message.event] = Message(
                        run=message.run,
                        event=message.event,
                        at=message.at,
                        name=message.name,
                        update=True,
                        arguments=message.arguments,
                        answer=first_object(done.outcome.success),
                    )
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
        wait = self.waits[started]
        self.waits[started] = Wait(
            run=wait.run,
            event=wait.event,
            begin=wait.begin,
            until=wait.until,
            end=_at(event),
            fired=fired,
            summary=wait.summary,
        )

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
                    event, "the workflow is TERMINATED from outside; nothing was cleaned up", bad=True
                )
            case EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                task = event.workflow_task_failed_event_attributes
                self._note(event, f"a workflow task FAILED: {_failure(task.failure)}", bad=True)
            case EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
                self._note(event, "a workflow task timed out: no worker finished it", bad=True)
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
