"""Cost of a workflow history: events by kind, and the actions that Temporal Cloud would bill."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

CHANGE_VERSION = "TemporalChangeVersion"
"""Written by the SDK with a patch's marker; Temporal Cloud exempts it."""

ONE_EACH = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
    EventType.EVENT_TYPE_TIMER_STARTED,
}

KINDS = {
    "WORKFLOW_TASK": "workflow tasks: the workflow's code runs",
    "ACTIVITY_TASK": "activities",
    "UPSERT": "search attributes",
    "WORKFLOW_PROPERTIES": "memos",
    "WORKFLOW_EXECUTION_SIGNALED": "signals: requests and box events",
    "TIMER": "timers",
    "MARKER": "markers of patches",
}
"""By prefix of the event type's name."""


def actions_of(events: Iterable[HistoryEvent]) -> int:
    """Billable actions by https://docs.temporal.io/cloud/actions; patch markers count as none."""
    return sum(map(_actions, events))


def kinds_of(events: Iterable[HistoryEvent]) -> Counter[str]:
    """Return the number of events of each kind."""
    return Counter(map(_kind, events))


def _kind(event: HistoryEvent) -> str:
    name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
    return next((words for start, words in KINDS.items() if name.startswith(start)), "others")


def _actions(event: HistoryEvent) -> int:
    match event.event_type:
        case kind if kind in ONE_EACH:
            return 1
        case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            return event.activity_task_started_event_attributes.attempt  # retries are not events
        case EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
            upsert = event.upsert_workflow_search_attributes_event_attributes
            return 0 if CHANGE_VERSION in upsert.search_attributes.indexed_fields else 1
        case _:
            return 0


def spent(history: Iterable[HistoryEvent], *, since: float = 0.0) -> list[tuple[str, float]]:
    """Return the seconds per activity and wait; concurrent ones count separately."""
    seconds: defaultdict[str, float] = defaultdict(float)
    times: dict[int, float] = {}
    names: dict[int, str] = {}
    for event in history:
        at = event.event_time.ToNanoseconds() / 1e9
        if at >= since:
            times[event.event_id] = at
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                names[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                scheduled = event.activity_task_started_event_attributes.scheduled_event_id
                _add(seconds, "an activity waits for its worker", times, scheduled, at)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                name = names.get(done.scheduled_event_id, "activity")
                _add(seconds, f"{name} runs", times, done.started_event_id, at)
            case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                scheduled = event.workflow_task_started_event_attributes.scheduled_event_id
                _add(seconds, "the workflow waits for its worker", times, scheduled, at)
            case EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                started = event.workflow_task_completed_event_attributes.started_event_id
                _add(seconds, "the workflow's code runs", times, started, at)
    return sorted(seconds.items(), key=lambda each: each[1], reverse=True)


def _add(seconds: defaultdict[str, float], name: str, times: dict[int, float], since: int, at: float) -> None:
    if since in times:
        seconds[name] += at - times[since]
