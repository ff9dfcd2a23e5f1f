"""The state at a point of a history, as `--at` shows it."""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest
from temporalio.api.history.v1 import History
from temporalio.client import WorkflowHistory

from cli.replay.histories import read
from cli.replay.timeline import states
from cli.replay.timeline.events import STATUS_ACTIVITY, parse_history
from cli.replay.timeline.render_json import snapshot_value
from tests.cli.replay.timeline.building import timeline_of
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run
from workers.history.state_snapshot import StateSnapshot
from workflows.workspace.enums import Phase
from workflows.workspace.requests import OutcomeKind


def recreating() -> tuple[StateSnapshot, StateSnapshot]:
    """The first state of the incident's recreate, and the state after it."""
    pairs = pairwise(timeline_of("incident").snapshots)
    return next((it, after) for it, after in pairs if it.phase is Phase.RECREATING)


def test_the_state_at_an_event_is_that_of_the_last_task_before_it() -> None:
    timeline = timeline_of("incident")
    accepted = next(it for it in timeline.requests if it.outcome is OutcomeKind.ACCEPTED)
    assert accepted.event is not None
    before = states.snapshot_at(timeline, str(accepted.event))
    assert (before.phase, before.generation) == (Phase.DEGRADED, 1)
    first, following = recreating()
    for event in (first.event, following.event - 1):
        assert states.snapshot_at(timeline, str(event)) == first
    [progress] = [text for name, text in first.describe() if name == "in progress"]
    assert progress.startswith("generation 2 since ")


def test_a_time_names_the_same_point_in_every_form() -> None:
    timeline, (first, following) = timeline_of("incident"), recreating()
    when = first.at + (following.at - first.at) / 2
    elsewhere = when.astimezone(timezone(timedelta(hours=1)))
    since = (when - timeline.entries[0].at).total_seconds()
    texts = [f"{when:%H:%M:%S.%f}", when.isoformat(), elsewhere.isoformat(), f"+{since:.6f}"]
    assert [states.snapshot_at(timeline, text) for text in texts] == [first] * 4


def test_a_history_that_is_cut_after_a_task_replays_to_the_same_state() -> None:
    """Not cut within the task: a task without its end counts as new."""
    whole, snapshots = read(HISTORIES / "incident.json"), timeline_of("incident").snapshots
    for snapshot, following in pairwise(snapshots):
        events = [event for event in whole.events if event.event_id < following.event]
        cut = WorkflowHistory(whole.workflow_id, History(events=events).events)
        last = [it for it in asyncio.run(replay_run(cut)).snapshots if it.event == snapshot.event][-1]
        assert (last.event, last.state, last.running) == (snapshot.event, snapshot.state, snapshot.running)


def test_records_agree_with_the_replayed_states() -> None:
    history = parse_history([read(HISTORIES / "incident.json").events])
    records = [call.arguments for call in history.calls if call.name == STATUS_ACTIVITY]
    recorded = {(str(it["phase"]), it["generation"]) for it in records}
    replayed = {(str(it.phase), it.generation) for it in timeline_of("incident").snapshots}
    assert recorded
    assert recorded <= replayed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("yesterday", "invalid --at value 'yesterday'"),
        ("1", "run 1 has no state at event 1"),
        ("2:9", "run 2 has no state at event 9"),
    ],
)
def test_an_invalid_point_is_explained(text: str, message: str) -> None:
    with pytest.raises(states.PointNotFound, match=message):
        states.snapshot_at(timeline_of("incident"), text)


def test_a_time_before_the_history_is_invalid() -> None:
    timeline = timeline_of("incident")
    early: datetime = timeline.begin - timedelta(hours=1)
    with pytest.raises(states.PointNotFound, match="invalid --at value"):
        states.snapshot_at(timeline, early.isoformat())


def test_a_delegation_has_no_state() -> None:
    with pytest.raises(states.PointNotFound, match="a delegation has none"):
        states.snapshot_at(timeline_of("delegated"), "9")


def test_the_whole_state_is_json() -> None:
    snapshot, _ = recreating()
    state = json.loads(json.dumps(snapshot_value(snapshot)["state"]))
    assert state["generation"] == snapshot.generation
