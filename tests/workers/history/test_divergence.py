"""Where a replay parts from what a run did: the point that it is reset to."""

import asyncio
import os

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from tests.replay.test_cold_start import COMPLETED, history
from workers.history.divergence import find_divergence
from workflows.shared.encryption import Encryption, KeyUnknown, PayloadKeys, converter

NO_KEYS = PayloadKeys.parse("")


def parts_at(run: WorkflowHistory, keys: PayloadKeys = NO_KEYS) -> int | None:
    return asyncio.run(find_divergence(run, Encryption(keys)))


def renamed(run: WorkflowHistory, activity_id: str) -> int:
    """Make as if the run had named an activity otherwise; returns the end of the task that did so."""
    for event in run.events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_id == activity_id:
            scheduled.activity_id = f"other-{activity_id}"
            return scheduled.workflow_task_completed_event_id
    raise AssertionError(activity_id)


def test_the_campaigns_find_parts_where_it_was_worked_on_in_two_parts() -> None:
    assert parts_at(history()) == COMPLETED


@pytest.mark.parametrize("name", ["incident", "delegated", "rolled"])
def test_what_replays_parts_nowhere(name: str) -> None:
    assert parts_at(read(HISTORIES / f"{name}.json")) is None


@pytest.mark.parametrize("activity_id", ["launch-1", "launch-2", "record-2"])
def test_a_run_parts_with_the_task_whose_command_is_another_one(activity_id: str) -> None:
    run = read(HISTORIES / "incident.json")
    completed = renamed(run, activity_id)
    assert parts_at(run) == completed
    [task] = [event for event in run.events if event.event_id == completed]
    assert task.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


def test_a_run_of_another_type_parts_nowhere() -> None:
    run = read(HISTORIES / "incident.json")
    run.events[0].workflow_execution_started_event_attributes.workflow_type.name = "FromTomorrow"
    assert parts_at(run) is None


def test_an_encrypted_history_needs_its_keys() -> None:
    keys = PayloadKeys.parse(f"k1:{os.urandom(32).hex()}")
    codec = converter(keys).payload_codec
    assert codec is not None
    run = read(HISTORIES / "incident.json")
    completed = renamed(run, "launch-2")
    started = run.events[0].workflow_execution_started_event_attributes.input
    [sealed] = asyncio.run(codec.encode(list(started.payloads)))
    started.payloads[0].CopyFrom(sealed)
    with pytest.raises(KeyUnknown):
        parts_at(run)
    assert parts_at(run, keys) == completed
