"""Workers apply everything that arrives with a workflow task before they run workflow code.

Without that SDK flag (sdk-python#1591), a worker that starts cold can work on a task in another order than
its replay does. `activation_order.json` has such a task: after a reset, signals, updates and the result of
`enroll` meet in it.
"""

import asyncio

import pytest
from temporalio.client import WorkflowHistory

from cli.replay.histories import read
from tests.replay.record import HISTORIES
from workers.history.replay_run import ReplayedRun, replay_run
from workers.temporal.activation_order import SINGLE_BATCH_FLAG

MEETING = HISTORIES.parent / "activation_order.json"


def recorded(name: str) -> WorkflowHistory:
    return read(HISTORIES / f"{name}.json")


def replayed(history: WorkflowHistory) -> ReplayedRun:
    return asyncio.run(replay_run(history))


@pytest.mark.parametrize("name", ["incident", "delegated", "rolled", "reset_back"])
def test_workers_record_the_flag_in_their_first_workflow_task(name: str) -> None:
    flags = [
        list(event.workflow_task_completed_event_attributes.sdk_metadata.lang_used_flags)
        for event in recorded(name).events
        if event.HasField("workflow_task_completed_event_attributes")
    ]
    assert SINGLE_BATCH_FLAG in flags[0]


def test_without_the_flag_a_task_replays_in_another_order() -> None:
    history = read(MEETING)
    assert replayed(history).difference is None
    for event in history.events:
        if event.HasField("workflow_task_completed_event_attributes"):
            del event.workflow_task_completed_event_attributes.sdk_metadata.lang_used_flags[:]
    assert replayed(history).difference is not None
