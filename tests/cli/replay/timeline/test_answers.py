"""Answers from an exported history: requests, boxes, tokens, durations."""

from dataclasses import replace

import pytest

from cli.replay.histories import read
from cli.replay.timeline import entries
from cli.replay.timeline.answers import Answer, answers
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.events import parse_history
from cli.replay.timeline.model import Timeline, clock
from cli.replay.timeline.payloads import time_in
from tests.cli.replay.timeline.building import timeline_of
from tests.replay.record import HISTORIES, REQUESTERS
from workflows.workspace.enums import BoxEventKind
from workflows.workspace.requests import OutcomeKind

EVERY = sorted(path.stem for path in HISTORIES.glob("*.json"))

NAMES = ("continued", "incident", "intents", "refused", "troubled", "unregistered", "volume")


def _answer(timeline: Timeline, question: str) -> Answer:
    return next(answer for answer in answers(timeline) if question in answer.question)


def test_requests_and_their_outcomes() -> None:
    timeline = timeline_of("incident")
    first, second, third = dict.fromkeys(it.requested_by for it in timeline.requests)
    assert {first, second, third} == set(REQUESTERS)
    answer = _answer(timeline, "Who requested")
    assert answer.short == (f"6 requests by {first}, {second} and {third}: 1 accepted, 2 joined and 3 stale")
    for line, request in zip(answer.lines, timeline.requests, strict=True):
        assert line.text.startswith(f"{request.requested_by} requested recreate of generation 1: ")
    assert sum("; served " in line.text for line in answer.lines) == 3


def test_every_box_event_has_a_description() -> None:
    assert set(entries._BOX_EVENTS) == set(BoxEventKind)


@pytest.mark.parametrize("name", EVERY)
def test_every_recorded_history_has_a_timeline(name: str) -> None:
    timeline = timeline_of(name)
    assert len(timeline.entries) > 1


def test_a_request_has_the_event_of_its_message() -> None:
    requests = timeline_of("incident").requests
    assert len({(it.run, it.event) for it in requests}) == 6
    assert all(it.arrived_at is not None and it.arrived_at <= it.decided_at for it in requests)


@pytest.mark.parametrize("name", NAMES)
def test_every_request_message_has_its_outcome(name: str) -> None:
    timeline = timeline_of(name)
    assert not [entry.text for entry in timeline.entries if "arrives" in entry.text]
    assert all(it.event is not None for it in timeline.requests if it.requested_by != "lifecycle")


def test_a_request_of_the_workflow_itself_has_no_message() -> None:
    own = [request for request in timeline_of("unregistered").requests if request.requested_by == "lifecycle"]
    assert [(request.outcome, request.event) for request in own] == [
        (OutcomeKind.ACCEPTED, None),
        (OutcomeKind.DEFERRED, None),
    ]


def test_which_boxes_ran_when() -> None:
    timeline = timeline_of("incident")
    answer = _answer(timeline, "Which boxes")
    assert answer.short == "2 boxes, never more than one at once"
    first, second = timeline.boxes
    assert first.end is not None
    assert first.end <= second.begin
    assert "EC2 confirmed its termination" in answer.lines[0].text
    assert "still there" in answer.lines[1].text


def test_two_boxes_at_once_are_reported() -> None:
    timeline = timeline_of("incident")
    first, second = timeline.boxes
    twice = replace(timeline, boxes=(replace(first, end=None), second))
    assert "up to 2 AT ONCE" in _answer(twice, "Which boxes").short


@pytest.mark.parametrize("name", NAMES)
def test_no_recorded_history_has_two_boxes_at_once(name: str) -> None:
    assert timeline_of(name).max_alive <= 1


def test_when_the_token_was_minted() -> None:
    registered = [
        time_in(message.arguments, "at")
        for message in parse_history([read(HISTORIES / "incident.json").events]).messages
        if message.arguments.get("kind") == "registered"
    ]
    first, second = [clock(at) for at in registered if at is not None]
    answer = _answer(timeline_of("incident"), "token")
    assert answer.short == f"generation 1's at {first} and generation 2's at {second}"
    assert "generation 2 opened: all earlier tokens were revoked" in [line.text for line in answer.lines]


def test_a_box_that_never_registered_got_no_token() -> None:
    answer = _answer(timeline_of("unregistered"), "token")
    assert "generation 1 has no registration in this history: it got no token" in [
        line.text for line in answer.lines
    ]


def test_why_it_took_that_long() -> None:
    timeline = timeline_of("incident")
    generation = timeline.generations[1]
    assert generation.online_at is not None
    seconds = (generation.online_at - generation.asked_at).total_seconds()
    longest = max(generation.segments, key=lambda it: it.seconds)
    assert _answer(timeline, "generation 2 take").short == (
        f"{seconds:.3f} s from {generation.asked_by} to online; "
        f"longest step: {longest.seconds:.3f} s, {longest.what}"
    )


def test_a_retry_is_part_of_the_duration() -> None:
    answer = _answer(timeline_of("troubled"), "generation 1 take")
    assert any("2 attempts, the previous one failed with Throttling" in line.text for line in answer.lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_segments_add_up_to_the_total(name: str) -> None:
    for answer in answers(timeline_of(name)):
        shares = [line.share for line in answer.lines if line.share is not None]
        if shares:
            assert 0.94 <= sum(shares) <= 1.0001, answer


def test_answers_do_not_depend_on_the_replay() -> None:
    alone, whole = build_timeline([read(HISTORIES / "incident.json").events]), timeline_of("incident")
    for question in ("Which boxes", "token"):
        assert _answer(alone, question) == _answer(whole, question)
    assert [it.outcome for it in alone.requests] == [it.outcome for it in whole.requests]
