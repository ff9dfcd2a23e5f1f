"""Counting what Temporal Cloud would bill of a history, and reading the table in docs/cost.md."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from tests.deploy.policy import ROOT

CHANGE_VERSION = "TemporalChangeVersion"
"""Written by the SDK beside a patch's marker; Temporal Cloud exempts it."""

ONE_EACH = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
    EventType.EVENT_TYPE_TIMER_STARTED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What something costs, once."""

    events: int
    actions: int
    calls: int
    """To AWS."""


def actions_of(events: Iterable[HistoryEvent]) -> int:
    """Billable actions, by https://docs.temporal.io/cloud/actions; patch markers are taken to be none."""
    return sum(map(_actions, events))


def _actions(event: HistoryEvent) -> int:
    match event.event_type:
        case kind if kind in ONE_EACH:
            return 1
        case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            return event.activity_task_started_event_attributes.attempt  # retries are no events
        case EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
            upsert = event.upsert_workflow_search_attributes_event_attributes
            return 0 if CHANGE_VERSION in upsert.search_attributes.indexed_fields else 1
        case _:
            return 0


def documented() -> dict[str, Cost]:
    """The measured rows of docs/cost.md, by their first cell."""
    page = (ROOT / "docs" / "cost.md").read_text()
    rows = re.findall(r"^\| ([a-z][^|]*?) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    return {
        name: Cost(events=int(events), actions=int(actions), calls=int(calls))
        for name, events, actions, calls in rows
    }
