"""`onebox replay`: run a recorded history through the present code, and tell its story.

Changes nothing: neither on the server nor in the database.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from workers import wiring
from workers.timeline import render, timeline
from workflows.converter import DATA_CONVERTER
from workflows.delegation import DelegationWorkflow
from workflows.fleet_roll import FleetWorkflow
from workflows.sweep import SweepWorkflow
from workflows.watchdog import WatchdogWorkflow
from workflows.workspace import WorkspaceWorkflow

LONGEST_CHAIN = 1_000
"""Runs of one workspace that are followed back; years of them."""


class HistoryUnreadable(Exception):
    """There is no history to replay; the text says why."""


def run(words: list[str]) -> int:
    """Replay each run: 0 if all are deterministic under this code, 1 if not, 2 if nothing was found."""
    parser = argparse.ArgumentParser(
        prog="onebox replay",
        description="Replay a workspace's history against this code, and print its timeline.",
    )
    parser.add_argument(
        "source",
        metavar="WORKSPACE_ID|history.json",
        help="a workspace (all its runs are read from the Temporal server), or a file as exported by "
        "`temporal workflow show --output json` or the UI",
    )
    source = parser.parse_args(words).source
    try:
        return asyncio.run(_replay(source))
    except HistoryUnreadable as error:
        sys.stderr.write(f"onebox replay: {error}\n")
        return 2


async def _replay(source: str) -> int:
    histories = [read(Path(source))] if source.endswith(".json") else await _fetch(source)
    events: list[HistoryEvent] = []
    differing = 0
    for number, history in enumerate(histories, start=1):
        events += history.events
        problem = await check(history)
        verdict = "deterministic under this code" if problem is None else f"NOT DETERMINISTIC: {problem}"
        differing += problem is not None
        which = f"{history.workflow_id}, run {number} of {len(histories)}"
        sys.stdout.write(f"{which}: {len(history.events)} events, {verdict}\n")
    sys.stdout.write(render(timeline(events)))
    return 1 if differing else 0


async def check(history: WorkflowHistory) -> str | None:
    """Replay one run; what differs, or None."""
    replayer = Replayer(
        workflows=[WorkspaceWorkflow, DelegationWorkflow, WatchdogWorkflow, SweepWorkflow, FleetWorkflow],
        data_converter=DATA_CONVERTER,
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    return None if result.replay_failure is None else str(result.replay_failure)


def read(path: Path) -> WorkflowHistory:
    """A history as the CLI or the UI exports it; raises `HistoryUnreadable`."""
    try:
        content = json.loads(path.read_text())
        started = content["events"][0]["workflowExecutionStartedEventAttributes"]
        return WorkflowHistory.from_json(started["workflowId"], content)
    except OSError as error:
        raise HistoryUnreadable(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, IndexError, TypeError):
        raise HistoryUnreadable(
            f"{path} is not a workflow history; export one with "
            "`temporal workflow show --workflow-id ID --output json`"
        ) from None


async def _fetch(workspace_id: str) -> list[WorkflowHistory]:
    """All runs of the chain that the server still has, oldest first."""
    try:
        client = await wiring.connect()
    except (RPCError, RuntimeError) as error:
        raise HistoryUnreadable(f"Temporal cannot be reached ({error}); see TEMPORAL_ADDRESS") from None
    found: list[WorkflowHistory] = []
    run_id: str | None = None
    while len(found) < LONGEST_CHAIN:
        history = await _fetch_run(client, workspace_id, run_id)
        if history is None:
            break
        found.insert(0, history)
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            break
    if not found:
        raise HistoryUnreadable(f"there is no workflow {workspace_id!r} in namespace {client.namespace!r}")
    return found


async def _fetch_run(client: Client, workspace_id: str, run_id: str | None) -> WorkflowHistory | None:
    try:
        return await client.get_workflow_handle(workspace_id, run_id=run_id).fetch_history()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None  # retention has taken it
        raise HistoryUnreadable(f"the history cannot be fetched: {error.message}") from None
