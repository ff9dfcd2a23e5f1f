"""The contract of the activities that find and reset stuck workflow runs."""

from dataclasses import dataclass

from temporalio import activity

from workflows.repair.rules import RepairDecision, StuckRun


@dataclass(frozen=True, slots=True, kw_only=True)
class FindStuck:
    """Find stuck runs."""

    limit: int
    """The most runs to return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckFound:
    """The stuck runs found."""

    runs: tuple[StuckRun, ...]


@activity.defn
async def find_stuck(request: FindStuck) -> StuckFound:
    """Query Temporal for running workflows whose tasks keep failing with a non-determinism error."""
    raise NotImplementedError


@activity.defn
async def repair(request: StuckRun) -> RepairDecision:
    """Replay the run, and reset it to the last task that replays. Repeating the activity resets it once."""
    raise NotImplementedError
