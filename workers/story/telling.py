"""The whole story of a chain of runs, put together from its parts.

Adds nothing of its own.
"""

from collections.abc import Sequence
from dataclasses import replace

from temporalio.api.history.v1 import HistoryEvent

from workers.story.asked import requests_of
from workers.story.lives import box_lives, generations_of
from workers.story.model import Entry, Moment, Story, Verdict
from workers.story.reading import read
from workers.story.standings import standings_of
from workers.story.timeline import entries_of, in_order


def tell(
    runs: Sequence[Sequence[HistoryEvent]], verdicts: Sequence[Verdict] = (), moments: Sequence[Moment] = ()
) -> Story:
    """The story of the runs, in their order."""
    reading = read(runs)
    standings = standings_of(reading, moments)
    asked, undecided = requests_of(reading, moments, standings)
    return Story(
        workspace_id=reading.workflow_id,
        workflow_type=reading.workflow_type,
        begin=reading.begin,
        end=reading.end,
        closed=reading.closed,
        verdicts=tuple(verdicts),
        entries=entries_of(reading, asked, undecided, standings),
        asked=asked,
        boxes=box_lives(reading),
        generations=generations_of(reading, asked, standings),
        standings=standings,
        moments=tuple(moments),
        beside="",
    )


def with_beside(story: Story, entries: Sequence[Entry], beside: str) -> Story:
    """The story with what the database has of that time laid beside it."""
    together = sorted([*story.entries, *entries], key=in_order)
    return replace(story, entries=tuple(together), beside=beside)
