"""The whole story of a chain of runs, put together from its parts.

Adds nothing of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

from temporalio.api.history.v1 import HistoryEvent

from cli.replay.timeline.boxes import box_lifetimes, generations_of
from cli.replay.timeline.events import parse_history
from cli.replay.timeline.lines import entries_of, sort_key
from cli.replay.timeline.model import Entry, ReplayVerdict, Timeline
from cli.replay.timeline.requests import requests_of
from cli.replay.timeline.status_changes import status_changes_of
from workers.history.state_snapshot import StateSnapshot


def build_timeline(
    runs: Sequence[Sequence[HistoryEvent]],
    verdicts: Sequence[ReplayVerdict] = (),
    snapshots: Sequence[StateSnapshot] = (),
) -> Timeline:
    """The story of the runs, in their order."""
    history = parse_history(runs)
    standings = status_changes_of(history, snapshots)
    asked, undecided = requests_of(history, snapshots, standings)
    return Timeline(
        workspace_id=history.workflow_id,
        workflow_type=history.workflow_type,
        begin=history.begin,
        end=history.end,
        closed=history.closed,
        verdicts=tuple(verdicts),
        entries=entries_of(history, asked, undecided, standings),
        requests=asked,
        boxes=box_lifetimes(history),
        generations=generations_of(history, asked, standings),
        status_changes=standings,
        snapshots=tuple(snapshots),
        database_note="",
    )


def with_database_entries(timeline: Timeline, entries: Sequence[Entry], database_note: str) -> Timeline:
    """The story with what the database has of that time laid beside it."""
    together = sorted([*timeline.entries, *entries], key=sort_key)
    return replace(timeline, entries=tuple(together), database_note=database_note)
