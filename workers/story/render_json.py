"""The story for machines: everything as one JSON value, with times in ISO 8601.

Carries states only where they are asked for: there is one for each workflow task.
"""

from dataclasses import asdict

from pydantic import JsonValue, TypeAdapter

from workers.story.answers import answers
from workers.story.model import Moment, Story
from workers.story.moments import STATE

FORMAT = 1
"""Raised when a member changes its meaning or goes away; new members may come at any time."""

_VALUE = TypeAdapter(dict[str, object])


def value(story: Story) -> dict[str, JsonValue]:
    """All but the states."""
    told = {
        "format": FORMAT,
        "workspace_id": story.workspace_id,
        "workflow_type": story.workflow_type,
        "begin": story.begin,
        "end": story.end,
        "closed": story.closed,
        "deterministic": all(verdict.problem is None for verdict in story.verdicts),
        "runs": [asdict(verdict) for verdict in story.verdicts],
        "most_boxes_alive_at_once": story.most_alive,
        "requests": [asdict(request) for request in story.asked],
        "boxes": [asdict(life) for life in story.boxes],
        "generations": [asdict(generation) for generation in story.generations],
        "standings": [asdict(standing) for standing in story.standings],
        "answers": [asdict(answer) for answer in answers(story)],
        "timeline": [
            asdict(entry) | {"seconds": (entry.at - story.entries[0].at).total_seconds()}
            for entry in story.entries
        ],
        "beside": story.beside,
    }
    return _plain(told)


def moment_value(moment: Moment) -> dict[str, JsonValue]:
    """The whole state at a point."""
    return _plain(
        {
            "run": moment.run,
            "event": moment.event,
            "at": moment.at,
            "running": moment.running,
            "state": STATE.dump_python(moment.state, mode="json"),
        }
    )


def _plain(told: dict[str, object]) -> dict[str, JsonValue]:
    plain: dict[str, JsonValue] = _VALUE.dump_python(told, mode="json")
    return plain
