"""Stories of recorded histories, as `onebox replay` tells them."""

import asyncio
from functools import cache

from cli.replay.command import problem
from cli.replay.histories import read
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.model import ReplayVerdict, Timeline
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run


@cache
def story_of(name: str) -> Timeline:
    """The story of one recorded history."""
    history = read(HISTORIES / f"{name}.json")
    recalled = asyncio.run(replay_run(history))
    verdict = ReplayVerdict(run=1, events=len(history.events), problem=problem(recalled))
    return build_timeline([history.events], [verdict], recalled.snapshots)
