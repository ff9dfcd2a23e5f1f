"""Typed stubs of the activities that take up runs which no replay can go on with, beside `ports`.

Each docstring is the contract that the implementation keeps; no implementation is imported here.
"""

from dataclasses import dataclass

from temporalio import activity

from workflows.repair.rules import RepairDecision, StuckRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FindStuck:
    """Look once for runs that stand still."""

    limit: int
    """As many are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckFound:
    """What one look saw."""

    runs: tuple[StuckRun, ...]


@activity.defn
async def find_stuck(request: FindStuck) -> StuckFound:
    """Ask the server for running workflows of ours whose tasks break determinism, one after the other."""
    raise NotImplementedError


@activity.defn
async def repair(request: StuckRun) -> RepairDecision:
    """Replay the run, and reset it to where the replay parts from it; once, however often asked."""
    raise NotImplementedError
