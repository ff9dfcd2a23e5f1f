"""From an exported history alone: who asked, what became of it, which boxes lived, the token, the time."""

import inspect
from dataclasses import replace

import pytest

from cli.replay.histories import read
from cli.replay.timeline import lines
from cli.replay.timeline.answers import Answer, answers
from cli.replay.timeline.boxes import STEP_DESCRIPTIONS
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.model import Timeline
from tests.cli.replay.timeline.building import story_of
from tests.replay.record import HISTORIES, REQUESTERS
from workflows.delegation import contract as delegation_contract
from workflows.orphans import contract as orphans_contract
from workflows.volume import contract as volume_contract
from workflows.workspace import contract as workspace_contract
from workflows.workspace.events import BoxEventKind
from workflows.workspace.requests import OutcomeKind

EVERY = sorted(path.stem for path in HISTORIES.glob("*.json"))

NAMES = ("continued", "incident", "intents", "refused", "troubled", "unregistered", "volume")

UNTOLD = {"record_status", "advance_delegation", "watch", "find_orphan_instances", "find_orphan_names"}
"""Activities that are no step on a generation's way."""


def _answer(story: Timeline, question: str) -> Answer:
    return next(answer for answer in answers(story) if question in answer.question)


def test_who_asked_and_what_became_of_each_request() -> None:
    told = _answer(story_of("incident"), "Who asked")
    assert told.short == (
        "6 requests by watchdog, auto-recovery and admin:core-devops: 1 accepted, 2 joined and 3 stale"
    )
    for line, requester in zip(told.lines, 2 * REQUESTERS, strict=True):
        assert line.text.startswith(f"{requester} asked to recreate about generation 1")
    assert sum("served 2.4" in line.text for line in told.lines) == 3


def test_every_step_that_a_workflow_can_take_has_words() -> None:
    activities = {
        name
        for module in (workspace_contract, delegation_contract, orphans_contract, volume_contract)
        for name, stub in vars(module).items()
        if inspect.iscoroutinefunction(stub)
    }
    assert activities - UNTOLD == set(STEP_DESCRIPTIONS)


def test_every_transition_of_a_box_has_words() -> None:
    assert set(lines._BOX_EVENTS) == set(BoxEventKind)


@pytest.mark.parametrize("name", EVERY)
def test_every_recorded_history_has_a_story(name: str) -> None:
    story = story_of(name)
    assert len(story.entries) > 1


def test_a_request_is_told_with_the_event_of_the_message_that_asked() -> None:
    asked = story_of("incident").requests
    assert len({(request.run, request.event) for request in asked}) == 6
    assert all(request.arrived_at is not None for request in asked)
    assert all(request.arrived_at <= request.decided_at for request in asked if request.arrived_at)


@pytest.mark.parametrize("name", NAMES)
def test_every_message_of_the_recorded_histories_has_its_outcome(name: str) -> None:
    story = story_of(name)
    assert not [entry.text for entry in story.entries if "arrives" in entry.text]
    asked = [request for request in story.requests if request.requested_by != "lifecycle"]
    assert all(request.event is not None for request in asked)


def test_what_the_lifecycle_asked_itself_came_with_no_message() -> None:
    own = [request for request in story_of("unregistered").requests if request.requested_by == "lifecycle"]
    assert [(request.outcome, request.event) for request in own] == [
        (OutcomeKind.ACCEPTED, None),
        (OutcomeKind.DEFERRED, None),
    ]


def test_how_many_boxes_lived_when() -> None:
    story = story_of("incident")
    told = _answer(story, "How many boxes")
    assert told.short == "2 boxes, never more than one at once"
    first, second = story.boxes
    assert first.end is not None
    assert first.end <= second.begin
    assert "EC2 confirmed its termination" in told.lines[0].text
    assert "still there" in told.lines[1].text


def test_two_boxes_at_once_would_be_told() -> None:
    story = story_of("incident")
    first, second = story.boxes
    twice = replace(story, boxes=(replace(first, end=None), second))
    assert "up to 2 AT ONCE" in _answer(twice, "How many boxes").short


@pytest.mark.parametrize("name", NAMES)
def test_no_recorded_history_has_two_boxes_at_once(name: str) -> None:
    assert story_of(name).max_alive <= 1


def test_when_the_token_was_minted() -> None:
    told = _answer(story_of("incident"), "token")
    assert told.short == "generation 1's at 01:47:48.037 and generation 2's at 01:47:53.844"
    assert "generation 2 opened: all tokens before it were revoked" in [line.text for line in told.lines]


def test_a_box_that_never_registered_got_no_token() -> None:
    told = _answer(story_of("unregistered"), "token")
    assert "generation 1 never registered here: it got no token" in [line.text for line in told.lines]


def test_why_it_took_that_long() -> None:
    told = _answer(story_of("incident"), "generation 2 take")
    assert told.short == (
        "2.442 s from watchdog to online; the most, 1.505 s, "
        "went into terminating what ran before, and confirming it"
    )


def test_a_retry_is_why_it_took_that_long() -> None:
    told = _answer(story_of("troubled"), "generation 1 take")
    assert any("2 attempts, the one before failed with Throttling" in line.text for line in told.lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_the_time_add_up_to_all_of_it(name: str) -> None:
    for answer in answers(story_of(name)):
        shares = [line.share for line in answer.lines if line.share is not None]
        if shares:
            assert 0.94 <= sum(shares) <= 1.0001, answer


def test_the_history_alone_answers_where_the_replay_says_nothing() -> None:
    alone, whole = build_timeline([read(HISTORIES / "incident.json").events]), story_of("incident")
    for question in ("How many boxes", "token"):
        assert _answer(alone, question) == _answer(whole, question)
    assert [it.outcome for it in alone.requests] == [it.outcome for it in whole.requests]
