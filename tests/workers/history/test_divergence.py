"""The workflow task at which a replay diverges from its history."""

import asyncio
import os

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from workers.history.divergence import find_divergence
from workflows.shared.encryption import Encryption, KeyUnknown, PayloadKeys, converter

NO_KEYS = PayloadKeys.parse("")


def diverges_at(run: WorkflowHistory, keys: PayloadKeys = NO_KEYS) -> int | None:
    return asyncio.run(find_divergence(run, Encryption(keys)))


def renamed(run: WorkflowHistory, activity_id: str) -> int:
    """Change the ID of a recorded activity; return the event at which its task completed."""
    for event in run.events:
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_id == activity_id:
            scheduled.activity_id = f"other-{activity_id}"
            return scheduled.workflow_task_completed_event_id
    raise AssertionError(activity_id)


@pytest.mark.parametrize("name", ["incident", "delegated", "rolled"])
def test_a_history_that_replays_does_not_diverge(name: str) -> None:
    assert diverges_at(read(HISTORIES / f"{name}.json")) is None


@pytest.mark.parametrize("activity_id", ["launch-1", "launch-2", "record-2"])
def test_a_run_diverges_at_the_task_whose_command_differs(activity_id: str) -> None:
    run = read(HISTORIES / "incident.json")
    completed = renamed(run, activity_id)
    assert diverges_at(run) == completed
    [task] = [event for event in run.events if event.event_id == completed]
    assert task.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


def test_a_run_of_an_unknown_workflow_type_does_not_diverge() -> None:
    run = read(HISTORIES / "incident.json")
    run.events[0].workflow_execution_started_event_attributes.workflow_type.name = "FromTomorrow"
    assert diverges_at(run) is None


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
        diverges_at(run)
    assert diverges_at(run, keys) == completed
