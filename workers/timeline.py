"""The story that a workflow's history tells: requests with their outcomes, steps, facts, in order of time.

Reads events; it neither fetches nor replays them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from temporalio.api.common.v1 import Payloads
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from workflows.converter import DATA_CONVERTER

_REQUEST_SIGNALS = ("recreate", "stop", "start", "delete")


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """One line of the story."""

    at: datetime
    lane: str
    """`request`, `step`, `box`, `status` or `run`."""
    text: str


def timeline(events: Sequence[HistoryEvent]) -> list[Entry]:
    """All that happened, oldest first."""
    told = [*_requests(events), *_others(events)]
    return sorted(told, key=lambda entry: entry.at)


def render(entries: Sequence[Entry]) -> str:
    """The story as text: absolute time, time since the beginning, what happened."""
    if not entries:
        return "nothing happened\n"
    start = entries[0].at
    lines = [f"{start:%Y-%m-%d} (UTC)"]
    for entry in entries:
        since = (entry.at - start).total_seconds()
        lines.append(f"{entry.at:%H:%M:%S.%f}"[:-3] + f"  +{since:10.3f}s  {entry.lane:8} {entry.text}")
    return "\n".join(lines) + "\n"


def _requests(events: Iterable[HistoryEvent]) -> Iterator[Entry]:
    """Decided requests, from the first record that carries them."""
    seen = set[str]()
    for event in events:
        if event.event_type != EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            continue
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name != "record_status":
            continue
        for request in _list(_object(scheduled.input), "requests"):
            if request["request_id"] in seen:
                continue
            seen.add(str(request["request_id"]))
            yield Entry(_time(str(request["at"])), "request", _told(request))


def _told(request: Mapping[str, object]) -> str:
    observed = request["observed_generation"]
    about = f" about generation {observed}" if observed is not None else ""
    forced = ", forced" if request["force"] else ""
    reason = f" ({request['reason']})" if request["reason"] else ""
    retry = f"; ask again at {request['retry_at']}" if request["retry_at"] else ""
    return (
        f"{request['kind']} by {request['requested_by'] or 'unnamed'}{about}{forced}{reason}: "
        f"{str(request['outcome']).upper()} — {request['detail']}{retry}"
    )


def _others(events: Sequence[HistoryEvent]) -> Iterator[Entry]:
    scheduled: dict[int, tuple[str, dict[str, object]]] = {}
    for event in events:
        at = event.event_time.ToDatetime(tzinfo=UTC)
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                continued = event.workflow_execution_started_event_attributes.continued_execution_run_id
                yield Entry(
                    at, "run", "continues in a new run" if continued else "the workspace's workflow starts"
                )
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                attributes = event.activity_task_scheduled_event_attributes
                name, given = attributes.activity_type.name, _object(attributes.input)
                scheduled[event.event_id] = (name, given)
                if name == "record_status":
                    yield Entry(at, "status", _status(given))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                completed = event.activity_task_completed_event_attributes
                name, given = scheduled.get(completed.scheduled_event_id, ("?", {}))
                if name != "record_status":
                    yield Entry(at, "step", _step(name, given, _object(completed.result)))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                name, given = scheduled.get(failed.scheduled_event_id, ("?", {}))
                yield Entry(at, "step", f"{_named(name, given)} FAILED: {_failure(failed.failure)}")
            case EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                timed_out = event.activity_task_timed_out_event_attributes
                name, given = scheduled.get(timed_out.scheduled_event_id, ("?", {}))
                yield Entry(at, "step", f"{_named(name, given)} TIMED OUT")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                signal = event.workflow_execution_signaled_event_attributes
                yield from _signal(at, signal.signal_name, _object(signal.input))
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
                yield Entry(at, "run", "ends: the workspace is deleted")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
                ended = event.workflow_execution_failed_event_attributes
                yield Entry(at, "run", f"FAILS: {_failure(ended.failure)}")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
                yield Entry(at, "run", "is TERMINATED from outside; nothing was cleaned up")
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED:
                yield Entry(at, "request", "a cancellation was asked for; it does nothing")
            case EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                task = event.workflow_task_failed_event_attributes
                yield Entry(at, "run", f"a workflow task failed: {task.failure.message}")
            case _:
                continue


def _signal(at: datetime, name: str, given: Mapping[str, object]) -> Iterator[Entry]:
    if name == "box_changed":
        yield Entry(at, "box", f"generation {given.get('generation')} is {given.get('kind')}")
    elif name not in _REQUEST_SIGNALS:
        yield Entry(at, "request", f"signal {name}")


def _status(given: Mapping[str, object]) -> str:
    error = given.get("last_error")
    why = f", last error {error['code']} in {error['phase']}" if isinstance(error, dict) else ""
    return f"{given.get('phase')}, generation {given.get('generation')}{why}"


def _step(name: str, given: Mapping[str, object], result: Mapping[str, object]) -> str:
    told = {key: value for key, value in result.items() if value not in (None, "", [], False)}
    told.pop("timings", None)
    details = ", ".join(f"{key}={value}" for key, value in told.items())
    return f"{_named(name, given)} done{': ' + details if details else ''}"


def _named(name: str, given: Mapping[str, object]) -> str:
    generation = given.get("generation")
    attempt = f", attempt {given['attempt']}" if "attempt" in given else ""
    return name + (f" (generation {generation}{attempt})" if generation is not None else "")


def _failure(failure: Failure) -> str:
    kind = failure.application_failure_info.type
    return f"{kind}: {failure.message}" if kind else failure.message


def _object(payloads: Payloads) -> dict[str, object]:
    """The first argument or the result, where it is an object."""
    if not payloads.payloads:
        return {}
    value = DATA_CONVERTER.payload_converter.from_payloads(payloads.payloads)[0]
    return value if isinstance(value, dict) else {}


def _list(given: Mapping[str, object], key: str) -> list[dict[str, object]]:
    value = given.get(key)
    return value if isinstance(value, list) else []


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
