"""Renders the timeline as one JSON value, with times in ISO 8601."""

from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from cli.replay.timeline.answers import answers
from cli.replay.timeline.model import Timeline
from workers.history.state_snapshot import StateSnapshot

FORMAT = 2
"""Raised when a member is removed or changes its meaning. New members may appear at any time."""

_VALUE = TypeAdapter(dict[str, object])


def value(timeline: Timeline) -> dict[str, JsonValue]:
    """The timeline without its states: there is one for each workflow task."""
    return _plain(
        {
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
            "boxes": [asdict(lifetime) for lifetime in timeline.boxes],
            "generations": [asdict(generation) for generation in timeline.generations],
            "status_changes": [asdict(change) for change in timeline.status_changes],
            "answers": [asdict(answer) for answer in answers(timeline)],
            "timeline": [
                asdict(entry) | {"seconds": (entry.at - timeline.entries[0].at).total_seconds()}
                for entry in timeline.entries
            ],
            "database_note": timeline.database_note,
        }
    )


def snapshot_value(snapshot: StateSnapshot) -> dict[str, JsonValue]:
    """The whole state at a point."""
    return _plain(
        {
            "run": snapshot.run,
            "event": snapshot.event,
            "at": snapshot.at,
            "running": snapshot.running.step if snapshot.running else None,
            "state": snapshot.as_json(),
        }
    )


def _plain(value: dict[str, object]) -> dict[str, JsonValue]:
    plain: dict[str, JsonValue] = _VALUE.dump_python(value, mode="json")
    return plain
