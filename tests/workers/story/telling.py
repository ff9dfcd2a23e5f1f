"""Stories of recorded histories, as `onebox replay` tells them."""

import asyncio
from functools import cache

from tests.replay.record import HISTORIES
from workers.histories import read
from workers.recall import recall
from workers.replay import problem
from workers.story.model import Story, Verdict
from workers.story.telling import tell


@cache
def story_of(name: str) -> Story:
    """The story of one recorded history."""
    history = read(HISTORIES / f"{name}.json")
    recalled = asyncio.run(recall(history))
    verdict = Verdict(run=1, events=len(history.events), problem=problem(recalled))
    return tell([history.events], [verdict], recalled.moments)
