"""The story for machines: everything as one JSON value, with times in ISO 8601.

Carries states only where they are asked for: there is one for each workflow task.
"""

from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from cli.replay.timeline.answers import answers
from cli.replay.timeline.model import Timeline
from cli.replay.timeline.states import STATE
from workers.history.state_snapshot import StateSnapshot

FORMAT = 2
"""Raised when a member changes its meaning or goes away; new members may come at any time."""

_VALUE = TypeAdapter(dict[str, object])


def value(timeline: Timeline) -> dict[str, JsonValue]:
    """All but the states."""
    told = {
        "format": FORMAT,
        "workspace_id": timeline.workspace_id,
        "workflow_type": timeline.workflow_type,
        "begin": timeline.begin,
        "end": timeline.end,
        "closed": timeline.closed,
        "deterministic": all(verdict.problem is None for verdict in timeline.verdicts),
        "runs": [asdict(verdict) for verdict in timeline.verdicts],
        "most_boxes_alive_at_once": timeline.max_alive,
        "requests": [asdict(request) for request in timeline.requests],
        "boxes": [asdict(life) for life in timeline.boxes],
        "generations": [asdict(generation) for generation in timeline.generations],
        "status_changes": [asdict(change) for change in timeline.status_changes],
        "answers": [asdict(answer) for answer in answers(timeline)],
        "timeline": [
            asdict(entry) | {"seconds": (entry.at - timeline.entries[0].at).total_seconds()}
            for entry in timeline.entries
        ],
        "database_note": timeline.database_note,
    }
    return _plain(told)


def snapshot_value(snapshot: StateSnapshot) -> dict[str, JsonValue]:
    """The whole state at a point."""
    return _plain(
        {
            "run": snapshot.run,
            "event": snapshot.event,
            "at": snapshot.at,
            "running": snapshot.running,
            "state": STATE.dump_python(snapshot.state, mode="json"),
        }
    )


def _plain(told: dict[str, object]) -> dict[str, JsonValue]:
    plain: dict[str, JsonValue] = _VALUE.dump_python(told, mode="json")
    return plain
