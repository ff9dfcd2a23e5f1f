"""Boxes and generations: how long each lived, and what its way to `online` was spent on.

Reads calls and facts; a box counts as alive from the call that may have launched it, to the proof of its end.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import zip_longest

from workers.story.asked import carried_instance
from workers.story.model import Asked, BoxLife, Generation, Standing, Stretch
from workers.story.payloads import number_in, text_in, texts, time_in
from workers.story.reading import RECORDING, Call, Reading
from workflows.requests import OutcomeKind, RequestKind
from workflows.state import Phase

WORDS = {
    "enroll": "reading the record",
    "open_generation": "opening the generation, revoking the tokens before",
    "close_workspace": "revoking the tokens",
    "fence_instances": "terminating what ran before, and confirming it",
    "launch": "launching the instance",
    "address": "waiting for the instance to run, then writing the DNS name",
    "ask_canary": "asking the agent a question",
    "remove_address": "removing the DNS name",
    "inquire": "reading what the box did, since its deadline had passed",
    "evict": "terminating a superseded box that still called",
    "consult_fleet": "asking whether the fleet allows it",
    "detach_volume": "seeing that no box before has the data volume",
    "snapshot_volume": "asking for a snapshot of the data volume",
    "attach_volume": "waiting for the instance to run, then attaching the data volume",
    "delete_volume": "deleting the data volume",
    "end_orphans": "terminating instances that are no box of this workspace",
}
"""What each step does, for people."""

WORTH_TELLING = 0.05
"""Of the way's length: shorter gaps between steps are added up."""


def box_lives(reading: Reading) -> tuple[BoxLife, ...]:
    """Each instance once, in the order of their launches."""
    calls = [call for call in reading.calls if call.name != RECORDING]
    begun: dict[str, tuple[int, datetime, bool]] = {}
    if carried := carried_instance(reading):
        begun[carried[0]] = (carried[1], reading.begin, False)
    for call in calls:
        instance = text_in(call.result, "instance_id")
        if _launches(call) and instance not in begun:
            begun[instance] = (number_in(call.given, "generation") or 0, _begun(call), True)
    return tuple(
        _life(instance, generation, begin, known, calls)
        for instance, (generation, begin, known) in begun.items()
    )


def _launches(call: Call) -> bool:
    return call.name == "launch" and bool(text_in(call.result, "instance_id"))


def _begun(call: Call) -> datetime:
    """Of several attempts, the first may have launched the box and lost the answer."""
    return call.started_at if call.attempt == 1 and call.started_at else call.scheduled_at


def _life(instance: str, generation: int, begin: datetime, known: bool, calls: Sequence[Call]) -> BoxLife:
    running_at, end, ended_by = None, None, ""
    for call in calls:
        if call.ended_at is None or call.ended_at < begin or end is not None:
            continue
        if call.name == "address" and call.given.get("instance_id") == instance and not call.problem:
            if call.result.get("gone"):
                end, ended_by = call.ended_at, "it ended by itself before it ran"
            else:
                running_at = running_at or call.ended_at
        elif call.name in ("fence_instances", "evict"):
            if instance in texts(call.result, "terminated"):
                end, ended_by = call.ended_at, "EC2 confirmed its termination"
            elif instance in texts(call.given, "declared_dead"):
                end, ended_by = call.ended_at, "a human declared it dead"
            elif instance in texts(call.given, "proven_gone"):
                end, ended_by = call.ended_at, "EC2 did not know it any longer, again and again"
    return BoxLife(
        instance_id=instance,
        generation=generation,
        begin=begin,
        begin_known=known,
        running_at=running_at,
        end=end,
        ended_by=ended_by,
    )


def generations_of(
    reading: Reading, asked: Sequence[Asked], standings: Sequence[Standing]
) -> tuple[Generation, ...]:
    """The generations that were opened in this history, or were current when it began, in order."""
    numbers = {call.generation for call in reading.calls if call.name == "open_generation" and call.result}
    numbers |= {standing.generation for standing in standings}
    told = sorted(number for number in numbers if number)
    begins = {number: _asked_at(number, reading, asked) for number in told}
    found = []
    for number, following in zip_longest(told, told[1:]):
        begin, by = begins[number]
        ended = begins[following][0] if following is not None else _closed_at(standings, begin)
        found.append(_generation(number, begin, by, ended, reading, standings))
    return tuple(found)


def _asked_at(number: int, reading: Reading, asked: Iterable[Asked]) -> tuple[datetime, str]:
    for request in asked:
        opens = request.kind in (RequestKind.RECREATE, RequestKind.START)
        if opens and request.generation == number and request.outcome is OutcomeKind.ACCEPTED:
            return request.decided_at, request.requested_by or "somebody unnamed"
    opening = [call for call in reading.calls if call.name == "open_generation" and call.generation == number]
    if not opening:
        return reading.begin, "before this history begins"
    if number == 1:
        return reading.begin, "the start of the workspace"
    return opening[0].scheduled_at, "a request that is not in this history"


def _closed_at(standings: Sequence[Standing], begin: datetime) -> datetime | None:
    closing = (Phase.STOPPING, Phase.STOPPED, Phase.DELETING, Phase.DELETED)
    return next((it.at for it in standings if it.at >= begin and it.phase in closing), None)


def _generation(
    number: int,
    begin: datetime,
    by: str,
    ended: datetime | None,
    reading: Reading,
    standings: Sequence[Standing],
) -> Generation:
    mine = [call for call in reading.calls if call.generation == number and call.name != RECORDING]
    online = next((it.at for it in standings if it.generation == number and it.phase is Phase.ONLINE), None)
    until = online or ended or reading.end
    steps = mine + [call for call in reading.calls if call.name == "enroll"]
    return Generation(
        number=number,
        asked_at=begin,
        asked_by=by,
        opened_at=_done(mine, "open_generation"),
        launched_at=min((_begun(call) for call in mine if _launches(call)), default=None),
        addressed_at=_done([call for call in mine if not call.result.get("gone")], "address"),
        registered_at=_fact(reading, number, "registered"),
        beating_at=_fact(reading, number, "beating"),
        canary_at=_done([call for call in mine if call.result.get("answered")], "ask_canary"),
        online_at=online,
        ended_at=ended,
        stretches=tuple(_stretches(steps, reading, begin, until)),
    )


def _done(calls: Iterable[Call], name: str) -> datetime | None:
    return next((call.ended_at for call in calls if call.name == name and not call.problem), None)


def _fact(reading: Reading, generation: int, kind: str) -> datetime | None:
    """When it happened, by PostgreSQL's clock; or what an inquiry of the record brought to light."""
    times = [
        time_in(message.given, "at") or message.at
        for message in reading.messages
        if message.name == "box_changed"
        and (message.given.get("kind"), message.given.get("generation")) == (kind, generation)
    ]
    times += [
        found
        for call in reading.calls
        if call.name == "inquire" and call.given.get("generation") == generation
        if (found := time_in(call.result, f"{kind}_at")) is not None
    ]
    return min(times, default=None)


def _stretches(
    calls: Iterable[Call], reading: Reading, begin: datetime, until: datetime
) -> Iterator[Stretch]:
    """The way from `begin` to `until` without holes: steps, waits, and what lies between them."""
    worth = WORTH_TELLING * (until - begin).total_seconds()
    at, between = begin, 0.0
    for call in sorted(calls, key=lambda call: call.scheduled_at):
        start, end = max(call.scheduled_at, at), min(call.ended_at or until, until)
        if end <= start:
            continue
        if (gap := (start - at).total_seconds()) > worth:
            yield Stretch(begin=at, seconds=gap, what=_waiting(reading, at, start))
        else:
            between += gap
        yield Stretch(
            begin=start,
            seconds=(end - start).total_seconds(),
            what=WORDS.get(call.name, call.name),
            note=_note(call),
        )
        at = end
    if (gap := (until - at).total_seconds()) > worth:
        yield Stretch(begin=at, seconds=gap, what=_waiting(reading, at, until))
    else:
        between += gap
    if between > worth:
        yield Stretch(begin=None, seconds=between, what="between the steps, all together")


def _waiting(reading: Reading, begin: datetime, end: datetime) -> str:
    for wait in reading.waits:
        if wait.begin < end and (wait.end is None or wait.end > begin) and wait.what_for:
            return f"waiting for {wait.what_for}"
    if begin == reading.begin:
        return "until a worker took it up"
    return "no step ran: waiting for a worker, or for the box"


def _note(call: Call) -> str:
    notes = []
    if call.given.get("instance_id") or call.result.get("instance_id"):
        notes.append(text_in(call.result, "instance_id") or text_in(call.given, "instance_id"))
    notes += texts(call.result, "terminated")
    if call.attempt > 1:
        notes.append(f"{call.attempt} attempts, the one before failed with {call.failed_before}")
    if call.problem:
        notes.append(f"FAILED: {call.problem}")
    if code := text_in(call.result, "capacity_code"):
        notes.append(f"refused: {code}")
    queued = call.started_at - call.scheduled_at if call.started_at and call.attempt == 1 else None
    if queued is not None and queued.total_seconds() > 1:
        notes.append(f"{queued.total_seconds():.1f} s of it waiting for a worker")
    return "; ".join(notes)
