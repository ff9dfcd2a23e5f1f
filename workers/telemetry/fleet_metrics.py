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

from store.db.pool import Pool, StoreUnavailable, connection
from store.fleet import metrics_queries, recreate_permits
from store.fleet.metrics_queries import FleetMetrics
from workflows.delegation.rules import TERMINAL, DelegationState
from workflows.fleet.rules import FleetPolicy, decide
from workflows.orphans.rules import OrphanAction
from workflows.workspace.state import Phase

READ_INTERVAL = timedelta(seconds=10)
"""Prometheus scrapes every 15 s or slower."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleet_metrics")

READ_AT = Gauge("onebox_fleet_metrics_timestamp_seconds", "When the figures of the fleet were last read.")
WORKSPACES = Gauge("onebox_workspaces", "Workspaces that are not deleted, by phase.", ["phase"])
CURRENT_GENERATIONS = Gauge(
    "onebox_generations_current", "Generations that are open: workspaces meant to have a box."
)
STALE = Gauge("onebox_boxes_stale", "Boxes of open generations that fell silent.")
VIOLATIONS = Gauge(
    "onebox_invariant_violations",
    "How often an invariant is broken now: must be 0. I1: workspaces with two live instances, by EC2's word. "
    "I4: generations with more tokens than they may have. I9: online without beats. I10: delegations that "
    "did not end.",
    ["invariant"],
)
MAX_INSTANCES = Gauge(
    "onebox_live_instances_per_workspace_max", "The largest number of live instances of one workspace."
)
INSTANCES = Gauge("onebox_live_instances", "Instances with our owner tag that are pending or running.")
MAX_TOKENS = Gauge(
    "onebox_live_tokens_per_generation_max", "The largest number of live tokens of one generation."
)
FROZEN = Gauge("onebox_fleet_frozen", "1 while nothing automatic is recreated.")
RECREATING = Gauge("onebox_automatic_recreates", "Automatic recreates under way.")
RECREATE_LIMIT = Gauge("onebox_automatic_recreates_limit", "How many of them may be under way at once.")
HEARTBEAT_INTAKE_AGE = Gauge(
    "onebox_heartbeat_intake_age_seconds", "Since a register API could last take in beats."
)
WATCHDOG_AT = Gauge("onebox_watchdog_timestamp_seconds", "When the watchdog's last round ended.")
ORPHAN_SWEEP_AT = Gauge(
    "onebox_orphan_sweep_timestamp_seconds", "When the orphan sweep last listed EC2's instances."
)
ORPHANS = Gauge("onebox_orphans", "What carries our tags and no generation claims, by verdict.", ["verdict"])
OUTBOX = Gauge("onebox_outbox_rows", "Rows on their way to workflows.", ["outbox"])
OUTBOX_AGE = Gauge("onebox_outbox_age_seconds", "Age of the oldest fact on its way to a workflow.")
DELEGATIONS = Gauge("onebox_delegations", "Open delegations, by state.", ["state"])
ENDED = Gauge(
    "onebox_delegations_ended_last_hour", "Delegations that ended within an hour, by state.", ["state"]
)
OLDEST_UNACKED = Gauge(
    "onebox_delegation_oldest_unacked_seconds",
    "Age of the oldest delivered delegation without an acknowledgement.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMetricsReader:
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
                log.warning("fleet_metrics.unavailable", error=type(error).__name__)
            await asyncio.sleep(READ_INTERVAL.total_seconds())

    async def read(self) -> None:
        """Read once, and show it."""
        async with connection(self.pool) as conn:
            seen = await metrics_queries.read(conn, expire=self.expire)
            counted = await recreate_permits.read_figures(conn)
        verdict = decide(counted, self.policy)
        _export(seen)
        FROZEN.set(verdict.frozen is not None or seen.watchdog_frozen)
        RECREATING.set(counted.recreating)
        RECREATE_LIMIT.set(verdict.max_concurrent)
        READ_AT.set(time.time())


def _export(seen: FleetMetrics) -> None:
    CURRENT_GENERATIONS.set(seen.running)
    STALE.set(seen.stale)
    _set_each(WORKSPACES, seen.phases, all_of=Phase)
    VIOLATIONS.labels("I1").set(seen.workspaces_with_duplicates or 0)
    VIOLATIONS.labels("I4").set(seen.generations_with_extra_tokens)
    VIOLATIONS.labels("I9").set(seen.online_but_stale)
    VIOLATIONS.labels("I10").set(seen.overdue)
    MAX_INSTANCES.set(seen.max_per_workspace or 0)
    INSTANCES.set(seen.running_instances or 0)
    MAX_TOKENS.set(seen.max_live_tokens)
    HEARTBEAT_INTAKE_AGE.set(seen.intake_age or 0)
    WATCHDOG_AT.set(_seconds(seen.watchdog_ran_at))
    ORPHAN_SWEEP_AT.set(_seconds(seen.listed_at))
    _set_each(ORPHANS, seen.orphans, all_of=tuple(each for each in OrphanAction if each.shown))
    OUTBOX.labels("workspaces").set(seen.workspace_events)
    OUTBOX.labels("delegations").set(seen.delegation_events)
    OUTBOX_AGE.set(seen.workspace_events_age or 0)
    _set_each(DELEGATIONS, seen.delegations, all_of=set(DelegationState) - TERMINAL)
    _set_each(ENDED, seen.delegations_ended, all_of=TERMINAL)
    OLDEST_UNACKED.set(seen.oldest_unacked_age or 0)


def _set_each(gauge: Gauge, counts: dict[str, int], *, all_of: Iterable[str]) -> None:
    """All values of the label, those that nothing has any longer too."""
    for value in all_of:
        gauge.labels(value).set(counts.get(value, 0))


def _seconds(at: datetime | None) -> float:
    return 0 if at is None else at.timestamp()
