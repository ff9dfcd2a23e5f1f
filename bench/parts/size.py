"""How much each benchmark does. Values only.

A small run shows that everything works, in about a minute; figures to be quoted come from a full one.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The sizes of one run."""

    name: str
    rounds: int
    """Of each comparison: ours and the other, in turn."""
    load_seconds: float
    """Of each side of a round of heartbeats."""
    connections: int
    """Kept alive, each with a call under way. Boxes share them: what counts is how many calls are open."""
    fleets: tuple[int, ...]
    """How many workspaces there are when growth is measured; the last is the fleet of the day."""
    registrations: int
    """Boxes that register for the first time in each round."""
    stampede: int
    """Boxes that register at once, each on a new connection."""
    signals: int
    """Recreate requests in each round."""
    generations: int
    """Boxes launched in each round of the generation's benchmark, one after the other."""
    resident: tuple[int, ...]
    """How many workflows of online workspaces a worker holds when its memory is measured."""
    day_beats: int
    """Beats of each workspace that are played of the day."""
    day_rounds: int
    """Rounds of the watchdog that are played of the day."""
    watched: tuple[int, ...]
    """Rows among which the watchdog's query searches."""
    queries: int
    """How often the watchdog's query is timed."""
    fault_rounds: int
    """Rounds of the incident's fault schedule."""


SMALL = Size(
    name="small",
    rounds=2,
    load_seconds=1.0,
    connections=32,
    fleets=(10, 30, 100),
    registrations=100,
    stampede=100,
    signals=12,
    generations=1,
    resident=(5, 10),
    day_beats=3,
    day_rounds=5,
    watched=(1_000, 10_000),
    queries=10,
    fault_rounds=1,
)

FULL = Size(
    name="full",
    rounds=5,
    load_seconds=3.0,
    connections=64,
    fleets=(100, 1_000, 10_000),
    registrations=1_000,
    stampede=2_000,
    signals=200,
    generations=3,
    resident=(20, 50, 100),
    day_beats=3,
    day_rounds=30,
    watched=(10_000, 100_000, 1_000_000),
    queries=30,
    fault_rounds=2,
)

SIZES = {size.name: size for size in (SMALL, FULL)}
