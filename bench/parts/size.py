"""The amount of work of each benchmark.

A small run is a smoke test of about a minute; quotable figures come from a full run.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The sizes of one run."""

    name: str
    rounds: int
    """Rounds of each comparison, alternating."""
    load_seconds: float
    """Duration per side of a round of heartbeats."""
    connections: int
    """Keep-alive connections, each with a call in progress; boxes share them."""
    fleets: tuple[int, ...]
    """Numbers of workspaces for growth; the last one is the fleet of the day."""
    registrations: int
    """First registrations per round."""
    stampede: int
    """Concurrent first registrations, each on a new connection."""
    signals: int
    """Recreate requests per round."""
    generations: int
    """Boxes launched in sequence, per round of the generation benchmark."""
    resident: tuple[int, ...]
    """Cached workflows of online workspaces for the worker's memory."""
    day_heartbeats: int
    """Heartbeats played per workspace for the day."""
    day_rounds: int
    """Watchdog rounds played for the day."""
    watched: tuple[int, ...]
    """Rows in the watchdog benchmark."""
    queries: int
    """Repetitions of the watchdog's query."""


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
    day_heartbeats=3,
    day_rounds=5,
    watched=(1_000, 10_000),
    queries=10,
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
    day_heartbeats=3,
    day_rounds=30,
    watched=(10_000, 100_000, 1_000_000),
    queries=30,
)

SIZES = {size.name: size for size in (SMALL, FULL)}
