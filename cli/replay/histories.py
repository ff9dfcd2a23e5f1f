"""Reads workflow histories from exported files and from the Temporal server.

HistoryUnreadable    there is no history to replay; the message says why
"""

import json
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode

from workers import wiring

MAX_CHAIN_RUNS = 1_000
"""Maximum number of runs that are read; a workspace has fewer in years."""


class HistoryUnreadable(Exception):
    """There is no history to replay; the message says why."""


def read(path: Path) -> WorkflowHistory:
    """Read a history that Temporal's CLI or UI exported. Raises `HistoryUnreadable`."""
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


def read_chain(paths: Sequence[Path]) -> list[WorkflowHistory]:
    """The runs in these files, oldest first. Raises `HistoryUnreadable`."""
    histories = [read(path) for path in paths]
    names = sorted({history.workflow_id for history in histories})
    if len(names) > 1:
        raise HistoryUnreadable(f"the files belong to different workflows: {', '.join(names)}")
    return sorted(histories, key=lambda history: history.events[0].event_time.ToNanoseconds())


async def fetch_chain(workspace_id: str) -> list[WorkflowHistory]:
    """All runs of the chain that the server still has, oldest first. Raises `HistoryUnreadable`."""
    try:
        client = await wiring.connect()
    except (RPCError, RuntimeError) as error:
        raise HistoryUnreadable(f"Temporal cannot be reached ({error}); see TEMPORAL_ADDRESS") from None
    found: list[WorkflowHistory] = []
    run_id: str | None = None
    while len(found) < MAX_CHAIN_RUNS:
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
            return None  # deleted after the retention period
        raise HistoryUnreadable(f"the history cannot be fetched: {error.message}") from None
