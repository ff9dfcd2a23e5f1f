"""Timelines of recorded histories, as `onebox replay` builds them."""

import asyncio
from functools import cache

from cli.replay.command import problem
from cli.replay.histories import read
from cli.replay.timeline.build import build_timeline
from cli.replay.timeline.model import ReplayVerdict, Timeline
from tests.replay.record import HISTORIES
from workers.history.replay_run import replay_run


@cache
def timeline_of(name: str) -> Timeline:
    """The timeline of one recorded history."""
    history = read(HISTORIES / f"{name}.json")
    replayed = asyncio.run(replay_run(history))
    verdict = ReplayVerdict(run=1, events=len(history.events), problem=problem(replayed))
    return build_timeline([history.events], [verdict], replayed.snapshots)
