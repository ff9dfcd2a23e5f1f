"""What a fault campaign found: a run that no replay could go on with, for a worker had started cold.

Its task 1000 brought three signals, three updates and what `launch` came to. The worker had taken the updates
in a moment later than the rest, and every replay takes them in together: `cold_start.json.gz` is its history.
"""

import asyncio
import gzip
from pathlib import Path

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory

from workers.history.replay_run import ReplayedRun, replay_run
from workers.temporal.activation_order import SINGLE_BATCH_FLAG

FOUND = Path(__file__).parent / "cold_start.json.gz"

COMPLETED = 1001
"""The end of the task that was worked on in two parts."""


def history() -> WorkflowHistory:
    return WorkflowHistory.from_json("faulty-15", gzip.decompress(FOUND.read_bytes()).decode())


def replayed(run: WorkflowHistory) -> ReplayedRun:
    return asyncio.run(replay_run(run))


def test_as_the_worker_then_worked_no_replay_goes_on() -> None:
    recalled = replayed(history())
    assert recalled.failure is not None
    assert "'address-10' does not match activity id of activity command 'record-61'" in recalled.failure
    assert str(recalled.difference) == (
        "event 1008: the history has activity address (address-10), "
        "this code issues activity record_status (record-61)"
    )


def test_as_the_worker_works_now_both_go_on_alike() -> None:
    run = history()
    for event in run.events:
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED and event.event_id >= COMPLETED:
            event.workflow_task_completed_event_attributes.sdk_metadata.lang_used_flags.append(
                SINGLE_BATCH_FLAG
            )
    recalled = replayed(run)
    assert (recalled.failure, recalled.difference) == (None, None)
