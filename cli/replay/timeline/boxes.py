"""Lifetimes of boxes, and milestones and time segments of generations.

A box counts as alive from the call that may have launched it until its termination is confirmed.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest

from cli.replay.timeline.events import STATUS_ACTIVITY, Call, ParsedHistory
from cli.replay.timeline.model import (
    BoxLifetime,
    Generation,
    RequestSummary,
    Segment,
    StatusChange,
    requester,
)
from cli.replay.timeline.payloads import number_in, text_in, texts, time_in
from cli.replay.timeline.requests import carried_instance
from workflows.workspace.enums import Phase
from workflows.workspace.phases import plan
from workflows.workspace.requests import OutcomeKind, RequestKind

MIN_SEGMENT_SHARE = 0.05
"""Share of the total time; shorter gaps between activities are added up."""


def box_lifetimes(history: ParsedHistory) -> tuple[BoxLifetime, ...]:
    """The lifetime of each instance, in the order of their launches."""
    calls = [call for call in history.calls if call.name != STATUS_ACTIVITY]
    launches: dict[str, tuple[int, datetime, bool]] = {}
    if carried := carried_instance(history):
        launches[carried[0]] = (carried[1], history.begin, False)
    for call in calls:
        instance = text_in(call.result, "instance_id")
        if _launches(call) and instance not in launches:
            launches[instance] = (number_in(call.arguments, "generation") or 0, _launch_time(call), True)
    return tuple(
        _lifetime(instance, generation, begin, known, calls)
        for instance, (generation, begin, known) in launches.items()
    )


def _launches(call: Call) -> bool:
    return call.name == "launch" and bool(text_in(call.result, "instance_id"))


def _launch_time(call: Call) -> datetime:
    """With several attempts, the first may have launched the box and lost the response."""
    return call.started_at if call.attempt == 1 and call.started_at else call.scheduled_at


def _lifetime(
    instance: str, generation: int, begin: datetime, known: bool, calls: Sequence[Call]
) -> BoxLifetime:
    running_at, end, ended_by = None, None, ""
    for call in calls:
        if call.ended_at is None or call.ended_at < begin or end is not None:
            continue
        if call.name == "address" and call.arguments.get("instance_id") == instance and not call.problem:
            if call.result.get("gone"):
                end, ended_by = call.ended_at, "it terminated before it was running"
            else:
                running_at = running_at or call.ended_at
        elif call.name in ("fence_instances", "evict"):
            if instance in texts(call.result, "terminated"):
                end, ended_by = call.ended_at, "EC2 confirmed its termination"
            elif instance in texts(call.arguments, "declared_dead"):
                end, ended_by = call.ended_at, "an operator declared it dead"
            elif instance in texts(call.arguments, "proven_gone"):
                end, ended_by = call.ended_at, "EC2 repeatedly did not find it"
    return BoxLifetime(
        instance_id=instance,
        generation=generation,
        begin=begin,
        begin_known=known,
        running_at=running_at,
        end=end,
        ended_by=ended_by,
    )


def generations_of(
    history: ParsedHistory, requests: Sequence[RequestSummary], status_changes: Sequence[StatusChange]
) -> tuple[Generation, ...]:
    """The generations that were opened in this history or current at its begin, in order."""
    numbers = {call.generation for call in history.calls if call.name == "open_generation" and call.result}
    numbers |= {change.generation for change in status_changes}
    ordered = sorted(number for number in numbers if number)
    begins = {number: _requested(number, history, requests) for number in ordered}
    found = []
    for number, following in zip_longest(ordered, ordered[1:]):
        begin, by = begins[number]
        ended = begins[following][0] if following is not None else _closed_at(status_changes, begin)
        found.append(_generation(number, begin, by, ended, history, status_changes))
    return tuple(found)


def _requested(
    number: int, history: ParsedHistory, requests: Iterable[RequestSummary]
) -> tuple[datetime, str]:
    for request in requests:
        opens = request.kind in (RequestKind.RECREATE, RequestKind.START)
        if opens and request.generation == number and request.outcome is OutcomeKind.ACCEPTED:
            return request.decided_at, requester(request)
    opening = [call for call in history.calls if call.name == "open_generation" and call.generation == number]
    if not opening:
        return history.begin, "before this history begins"
    if number == 1:
        return history.begin, "the start of the workspace"
    return opening[0].scheduled_at, "a request that is not in this history"


def _closed_at(status_changes: Sequence[StatusChange], begin: datetime) -> datetime | None:
    closing = (Phase.STOPPING, Phase.STOPPED, Phase.DELETING, Phase.DELETED)
    return next((it.at for it in status_changes if it.at >= begin and it.phase in closing), None)


def _generation(
    number: int,
    begin: datetime,
    by: str,
    ended: datetime | None,
    history: ParsedHistory,
    status_changes: Sequence[StatusChange],
) -> Generation:
    mine = [call for call in history.calls if call.generation == number and call.name != STATUS_ACTIVITY]
    online = next(
        (it.at for it in status_changes if it.generation == number and it.phase is Phase.ONLINE), None
    )
    until = online or ended or history.end
    steps = mine + [call for call in history.calls if call.name == "enroll"]
    return Generation(
        number=number,
        asked_at=begin,
        asked_by=by,
        opened_at=_completed_at(mine, "open_generation"),
        launched_at=min((_launch_time(call) for call in mine if _launches(call)), default=None),
        addressed_at=_completed_at([call for call in mine if not call.result.get("gone")], "address"),
        registered_at=_event_time(history, number, "registered"),
        first_heartbeat_at=_event_time(history, number, "alive"),
        canary_at=_completed_at([call for call in mine if call.result.get("answered")], "ask_canary"),
        online_at=online,
        ended_at=ended,
        segments=tuple(_segments(steps, history, begin, until)),
    )


def _completed_at(calls: Iterable[Call], name: str) -> datetime | None:
    return next((call.ended_at for call in calls if call.name == name and not call.problem), None)


def _event_time(history: ParsedHistory, generation: int, kind: str) -> datetime | None:
    """When a box event happened by PostgreSQL's clock, from its signal or a check of the registration."""
    times = [
        time_in(message.arguments, "at") or message.at
        for message in history.messages
        if message.name == "box_changed"
        and (message.arguments.get("kind"), message.arguments.get("generation")) == (kind, generation)
    ]
    times += [
        found
        for call in history.calls
        if call.name == "check_registration" and call.arguments.get("generation") == generation
        if (found := time_in(call.result, "registered_at" if kind == "registered" else "heartbeat_at"))
        is not None
    ]
    return min(times, default=None)


def _segments(
    calls: Iterable[Call], history: ParsedHistory, begin: datetime, until: datetime
) -> Iterator[Segment]:
    """The time from `begin` to `until` without gaps: activities, waits, and the time between them."""
    threshold = MIN_SEGMENT_SHARE * (until - begin).total_seconds()
    at, between = begin, 0.0
    for call in sorted(calls, key=lambda call: call.scheduled_at):
        start, end = max(call.scheduled_at, at), min(call.ended_at or until, until)
        if end <= start:
            continue
        if (gap := (start - at).total_seconds()) > threshold:
            yield Segment(begin=at, seconds=gap, what=_waiting(history, at, start))
        else:
            between += gap
        yield Segment(
            begin=start,
            seconds=(end - start).total_seconds(),
            what=_doing(call.name),
            note=_note(call),
        )
        at = end
    if (gap := (until - at).total_seconds()) > threshold:
        yield Segment(begin=at, seconds=gap, what=_waiting(history, at, until))
    else:
        between += gap
    if between > threshold:
        yield Segment(begin=None, seconds=between, what="between the activities, in total")


def _doing(activity: str) -> str:
    step = plan.BY_ACTIVITY.get(activity)
    return step.doing if step is not None else activity


def _waiting(history: ParsedHistory, begin: datetime, end: datetime) -> str:
    for wait in history.waits:
        if wait.begin < end and (wait.end is None or wait.end > begin) and wait.summary:
            return f"waiting for {wait.summary}"
    if begin == history.begin:
        return "waiting for a worker"
    return "no activity ran: waiting for a worker, or for the box"


def _note(call: Call) -> str:
    notes = []
    if call.arguments.get("instance_id") or call.result.get("instance_id"):
        notes.append(text_in(call.result, "instance_id") or text_in(call.arguments, "instance_id"))
    notes += texts(call.result, "terminated")
    if call.attempt > 1:
        notes.append(f"{call.attempt} attempts, the previous one failed with {call.previous_failure}")
    if call.problem:
        notes.append(f"FAILED: {call.problem}")
    if code := text_in(call.result, "capacity_code"):
        notes.append(f"refused: {code}")
    queued = call.started_at - call.scheduled_at if call.started_at and call.attempt == 1 else None
    if queued is not None and queued.total_seconds() > 1:
        notes.append(f"{queued.total_seconds():.1f} s of it waiting for a worker")
    return "; ".join(notes)
