"""Builds the timeline of a chain of runs."""

from collections.abc import Sequence
from dataclasses import replace

from temporalio.api.history.v1 import HistoryEvent

from cli.replay.timeline.boxes import box_lifetimes, generations_of
from cli.replay.timeline.entries import entries_of, sort_key
from cli.replay.timeline.events import parse_history
from cli.replay.timeline.model import Entry, ReplayVerdict, Timeline
from cli.replay.timeline.requests import requests_of
from cli.replay.timeline.states import status_changes_of
from workers.history.state_snapshot import StateSnapshot


def build_timeline(
    runs: Sequence[Sequence[HistoryEvent]],
    verdicts: Sequence[ReplayVerdict] = (),
    snapshots: Sequence[StateSnapshot] = (),
) -> Timeline:
    """The timeline of the runs, which are given oldest first."""
    history = parse_history(runs)
    changes = status_changes_of(history, snapshots)
    requests, undecided = requests_of(history, snapshots, changes)
    return Timeline(
        workspace_id=history.workflow_id,
        workflow_type=history.workflow_type,
        begin=history.begin,
        end=history.end,
        closed=history.closed,
        verdicts=tuple(verdicts),
        entries=entries_of(history, requests, undecided, changes),
        requests=requests,
        boxes=box_lifetimes(history),
        generations=generations_of(history, requests, changes),
        status_changes=changes,
        snapshots=tuple(snapshots),
        database_note="",
    )


def with_database_entries(timeline: Timeline, entries: Sequence[Entry], database_note: str) -> Timeline:
    """The timeline with entries from the database."""
    merged = sorted([*timeline.entries, *entries], key=sort_key)
    return replace(timeline, entries=tuple(merged), database_note=database_note)
