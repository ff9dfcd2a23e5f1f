"""Compares the commands that a history records with those that the current code issues.

Commands are short texts, such as `activity launch (launch-2)`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.bridge.proto.workflow_commands import WorkflowCommand
from typing_extensions import override

_CHANGE_VERSION = "TemporalChangeVersion"
"""The search attribute that the SDK writes along with each new patch marker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A workflow task and its commands."""

    started: int
    """The ID of its WorkflowTaskStarted event."""
    commands: tuple[str, ...]
    events: tuple[int, ...] = ()
    """The event ID of each command; empty for a replayed task."""
    completed: int | None = None
    """The ID of its WorkflowTaskCompleted event; None for a replayed task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The first command that differs between history and code."""

    event: int
    """The recorded event that the code does not reproduce; the task's end if the code issues more
    commands."""
    recorded: str | None
    issued: str | None

    @override
    def __str__(self) -> str:
        return (
            f"event {self.event}: the history has {self.recorded or 'no further command of this task'}, "
            f"this code issues {self.issued or 'nothing'}"
        )


def recorded_tasks(events: Iterable[HistoryEvent]) -> list[Task]:
    """The completed workflow tasks with their commands."""
    started: dict[int, int] = {}
    found: dict[int, list[tuple[int, str]]] = {}
    for event in events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            started[event.event_id] = event.workflow_task_completed_event_attributes.started_event_id
            found[event.event_id] = []
            continue
        recorded = _recorded(event)
        if recorded is not None:
            completed, command = recorded
            found.setdefault(completed, []).append((event.event_id, command))
    return [
        Task(
            started=started[completed],
            commands=tuple(command for _, command in commands),
            events=tuple(number for number, _ in commands),
            completed=completed,
        )
        for completed, commands in found.items()
        if completed in started
    ]


def issued_commands(commands: Iterable[WorkflowCommand]) -> tuple[str, ...]:
    """The commands of an activation. A timer that is started and cancelled in the same one is left out."""
    found: list[tuple[str, int | None]] = []
    for command in commands:
        variant = command.WhichOneof("variant")
        if variant == "cancel_timer" and ("start timer", command.cancel_timer.seq) in found:
            found.remove(("start timer", command.cancel_timer.seq))
        else:
            found += ((text, seq) for text, seq in _issued(command))
    return tuple(text for text, _ in found)


def first_difference(recorded: Sequence[Task], issued: Iterable[Task]) -> Difference | None:
    """The first command that differs from the history; None if all replayed commands match."""
    by_start = {task.started: task for task in recorded}
    for mine in issued:
        theirs = by_start.get(mine.started)
        if theirs is None:
            continue  # the last task was not completed when the history was read
        for index in range(max(len(theirs.commands), len(mine.commands))):
            was = theirs.commands[index] if index < len(theirs.commands) else None
            now = mine.commands[index] if index < len(mine.commands) else None
            if was != now:
                event = theirs.events[index] if was is not None else theirs.completed
                return Difference(event=event or theirs.started, recorded=was, issued=now)
    return None


def _recorded(event: HistoryEvent) -> tuple[int, str] | None:
    """The event ID of the completed task and its command that produced this event; None if no command did."""
    match event.event_type:
        case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            text = _activity(scheduled.activity_type.name, scheduled.activity_id)
            return scheduled.workflow_task_completed_event_id, text
        case EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED:
            cancelled = event.activity_task_cancel_requested_event_attributes
            return cancelled.workflow_task_completed_event_id, "cancel activity"
        case EventType.EVENT_TYPE_TIMER_STARTED:
            return event.timer_started_event_attributes.workflow_task_completed_event_id, "start timer"
        case EventType.EVENT_TYPE_TIMER_CANCELED:
            return event.timer_canceled_event_attributes.workflow_task_completed_event_id, "cancel timer"
        case EventType.EVENT_TYPE_MARKER_RECORDED:
            marker = event.marker_recorded_event_attributes
            return marker.workflow_task_completed_event_id, f"marker {marker.marker_name}"
        case EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
            upsert = event.upsert_workflow_search_attributes_event_attributes
            if _CHANGE_VERSION in upsert.search_attributes.indexed_fields:
                return None
            return upsert.workflow_task_completed_event_id, "search attributes"
        case EventType.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED:
            modified = event.workflow_properties_modified_event_attributes
            return modified.workflow_task_completed_event_id, "memo"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            done = event.workflow_execution_completed_event_attributes
            return done.workflow_task_completed_event_id, "complete workflow"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            failed = event.workflow_execution_failed_event_attributes
            return failed.workflow_task_completed_event_id, "fail workflow"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
            continued = event.workflow_execution_continued_as_new_event_attributes
            return continued.workflow_task_completed_event_id, "continue as new"
        case _:
            return None


def _issued(command: WorkflowCommand) -> Iterator[tuple[str, int | None]]:
    match command.WhichOneof("variant"):
        case "schedule_activity":
            scheduled = command.schedule_activity
            yield _activity(scheduled.activity_type, scheduled.activity_id), None
        case "request_cancel_activity":
            yield "cancel activity", None
        case "start_timer":
            yield "start timer", command.start_timer.seq
        case "cancel_timer":
            yield "cancel timer", None
        case "set_patch_marker":
            yield "marker core_patch", None
        case "upsert_workflow_search_attributes":
            yield "search attributes", None
        case "modify_workflow_properties":
            yield "memo", None
        case "complete_workflow_execution":
            yield "complete workflow", None
        case "fail_workflow_execution":
            yield "fail workflow", None
        case "continue_as_new_workflow_execution":
            yield "continue as new", None
        case "update_response" | "respond_to_query" | None:
            return  # the order of update responses is not compared
        case other:
            yield str(other), None


def _activity(name: str, activity_id: str) -> str:
    return f"activity {name} ({activity_id})"
