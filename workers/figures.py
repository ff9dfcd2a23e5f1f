"""The fleet's figures as metrics: read from PostgreSQL every few seconds, in this one place.

Every worker exports the same ones: take `max()` over them. They say how old they are, since a database that
cannot be asked leaves the last ones standing.
"""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
import structlog
from prometheus_client import Gauge

from store import figures, fleet
from store.figures import Figures
from store.pool import Pool, StoreUnavailable, connection
from workflows.delegations import TERMINAL, DelegationState
from workflows.fleet import FleetPolicy, judge
from workflows.orphans import Verdict
from workflows.state import Phase

READ_EVERY = timedelta(seconds=10)
"""Prometheus scrapes every 15 s or slower."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("figures")

READ_AT = Gauge("onebox_figures_timestamp_seconds", "When the figures of the fleet were last read.")
WORKSPACES = Gauge("onebox_workspaces", "Workspaces that are not deleted, by phase.", ["phase"])
RUNNING = Gauge("onebox_generations_current", "Generations that are open: workspaces meant to have a box.")
STALE = Gauge("onebox_boxes_silent", "Boxes of open generations that fell silent.")
VIOLATIONS = Gauge(
    "onebox_invariant_violations",
    "How often an invariant is broken now: must be 0. I1: workspaces with two live instances, by EC2's word. "
    "I4: generations with more tokens than they may have. I9: online without beats. I10: delegations that "
    "did not end.",
    ["invariant"],
)
MOST_INSTANCES = Gauge(
    "onebox_live_instances_per_workspace_max", "The largest number of live instances of one workspace."
)
INSTANCES = Gauge("onebox_live_instances", "Instances with our owner tag that are pending or running.")
MOST_TOKENS = Gauge(
    "onebox_live_tokens_per_generation_max", "The largest number of live tokens of one generation."
)
FROZEN = Gauge("onebox_fleet_frozen", "1 while nothing automatic is recreated.")
RECREATING = Gauge("onebox_automatic_recreates", "Automatic recreates under way.")
CONCURRENT = Gauge("onebox_automatic_recreates_limit", "How many of them may be under way at once.")
INTAKE_AGE = Gauge("onebox_beats_intake_age_seconds", "Since a register API could last take in beats.")
WATCHED_AT = Gauge("onebox_watchdog_timestamp_seconds", "When the watchdog's last round ended.")
LOOKED_AT = Gauge("onebox_sweep_timestamp_seconds", "When the orphan sweep last listed EC2's instances.")
ORPHANS = Gauge("onebox_orphans", "What carries our tags and no generation claims, by verdict.", ["verdict"])
OUTBOX = Gauge("onebox_outbox_rows", "Rows on their way to workflows.", ["outbox"])
OUTBOX_AGE = Gauge("onebox_outbox_age_seconds", "Age of the oldest fact on its way to a workflow.")
DELEGATIONS = Gauge("onebox_delegations", "Open delegations, by state.", ["state"])
ENDED = Gauge(
    "onebox_delegations_ended_last_hour", "Delegations that ended within an hour, by state.", ["state"]
)
UNACKED_AGE = Gauge(
    "onebox_delegation_unacked_age_seconds",
    "Age of the oldest delivered delegation without an acknowledgement.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureReader:
    """Reads until it is cancelled."""

    pool: Pool
    policy: FleetPolicy
    expire: timedelta

    async def run(self) -> None:
        """A database that cannot be asked is asked again."""
        while True:
            try:
                await self.read()
            except (StoreUnavailable, psycopg.Error) as error:
                # Also what doesn't pass by itself, such as a schema that is behind: no work depends on it.
                log.warning("figures.unavailable", error=type(error).__name__)
            await asyncio.sleep(READ_EVERY.total_seconds())

    async def read(self) -> None:
        """Read once, and show it."""
        async with connection(self.pool) as conn:
            seen = await figures.read(conn, expire=self.expire)
            counted = await fleet.figures(conn)
        verdict = judge(counted, self.policy)
        _show(seen)
        FROZEN.set(verdict.frozen is not None or seen.watchdog_frozen)
        RECREATING.set(counted.recreating)
        CONCURRENT.set(verdict.concurrent)
        READ_AT.set(time.time())


def _show(seen: Figures) -> None:
    RUNNING.set(seen.running)
    STALE.set(seen.stale)
    _each(WORKSPACES, seen.phases, all_of=Phase)
    VIOLATIONS.labels("I1").set(seen.crowded or 0)
    VIOLATIONS.labels("I4").set(seen.crowded_tokens)
    VIOLATIONS.labels("I9").set(seen.online_unheard)
    VIOLATIONS.labels("I10").set(seen.overdue)
    MOST_INSTANCES.set(seen.most_alive or 0)
    INSTANCES.set(seen.alive or 0)
    MOST_TOKENS.set(seen.most_tokens)
    INTAKE_AGE.set(seen.intake_age or 0)
    WATCHED_AT.set(_seconds(seen.watched_at))
    LOOKED_AT.set(_seconds(seen.looked_at))
    _each(ORPHANS, seen.orphans, all_of=tuple(each for each in Verdict if each.shown))
    OUTBOX.labels("facts").set(seen.facts)
    OUTBOX.labels("stirrings").set(seen.stirrings)
    OUTBOX_AGE.set(seen.facts_age or 0)
    _each(DELEGATIONS, seen.delegations, all_of=set(DelegationState) - TERMINAL)
    _each(ENDED, seen.delegations_ended, all_of=TERMINAL)
    UNACKED_AGE.set(seen.unacked_age or 0)


def _each(gauge: Gauge, counts: dict[str, int], *, all_of: Iterable[str]) -> None:
    """All values of the label, those that nothing has any longer too."""
    for value in all_of:
        gauge.labels(value).set(counts.get(value, 0))


def _seconds(at: datetime | None) -> float:
    return 0 if at is None else at.timestamp()
