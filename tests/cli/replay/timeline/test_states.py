"""The state at a point is what the workflow itself remembered there."""

import asyncio
import json
from itertools import pairwise

import pytest
from temporalio.api.history.v1 import History
from temporalio.client import WorkflowHistory

from cli.replay.histories import read
from cli.replay.timeline import states
from cli.replay.timeline.events import STATUS_ACTIVITY
from cli.replay.timeline.events import parse_history as read_events
from cli.replay.timeline.render_json import snapshot_value
from tests.cli.replay.timeline.building import story_of
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run
from workflows.workspace import conditions
from workflows.workspace.state import Phase, Step


def test_the_state_at_an_event_is_that_of_the_last_task_by_then() -> None:
    story = story_of("incident")
    accepted = next(request for request in story.requests if request.event is not None)
    assert accepted.event is not None
    before = states.snapshot_at(story, str(accepted.event))
    after = states.snapshot_at(story, str(accepted.event + 2))
    assert (conditions.phase(before.state), before.state.generation) == (Phase.DEGRADED, 1)
    assert (conditions.phase(after.state), after.running) == (Phase.RECREATING, Step.OPEN)
    assert after.state.provisioning is not None
    assert after.state.provisioning.generation == 2


@pytest.mark.parametrize("text", ["01:47:52", "2026-11-24T01:47:52", "2026-11-24T02:47:52+01:00", "+4.638"])
def test_a_time_names_the_same_point_however_it_is_given(text: str) -> None:
    moment = states.snapshot_at(story_of("incident"), text)
    assert (moment.event, moment.state.generation, moment.running) == (108, 2, Step.FENCE)


def test_a_history_cut_after_the_points_task_replays_to_the_same_state() -> None:
    """Not cut at the point: a task whose end is not there counts as new, and patches apply to it."""
    whole, seen = read(HISTORIES / "incident.json"), story_of("incident").snapshots
    for moment, following in pairwise(seen):
        events = [event for event in whole.events if event.event_id < following.event]
        cut = WorkflowHistory(whole.workflow_id, History(events=events).events)
        last = [it for it in asyncio.run(replay_run(cut)).snapshots if it.event == moment.event][-1]
        assert (last.event, last.state, last.running) == (moment.event, moment.state, moment.running)


def test_what_was_recorded_is_what_the_state_was() -> None:
    """The record's own words, written at the time, agree with the states that the replay saw."""
    story = story_of("incident")
    alone = [(str(event["phase"]), event["generation"]) for event in _recorded_statuses()]
    seen = [(str(conditions.phase(it.state)), it.state.generation) for it in story.snapshots]
    assert alone
    assert set(alone) <= set(seen)


def _recorded_statuses() -> list[dict[str, object]]:
    reading = read_events([read(HISTORIES / "incident.json").events])
    return [call.arguments for call in reading.calls if call.name == STATUS_ACTIVITY]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yesterday", "is no point"),
        ("1", "had done nothing by event 1"),
        ("2:9", "had done nothing"),
        ("2026-11-24T01:00:00", "is no point"),
    ],
)
def test_a_point_that_is_none_is_explained(text: str, said: str) -> None:
    with pytest.raises(states.PointNotFound, match=said):
        states.snapshot_at(story_of("incident"), text)


def test_of_a_delegation_there_is_no_state() -> None:
    with pytest.raises(states.PointNotFound, match="of a delegation there is none"):
        states.snapshot_at(story_of("delegated"), "9")


def test_a_machine_gets_the_whole_state() -> None:
    told = snapshot_value(states.snapshot_at(story_of("incident"), "108"))
    assert json.loads(json.dumps(told["state"]))["provisioning"]["requesters"]
