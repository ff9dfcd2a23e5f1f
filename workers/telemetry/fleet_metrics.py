"""Fleet metrics, read from PostgreSQL every few seconds.

Every worker exports the same values: use `max()` over them. While the database is unavailable, the last
values stay; `onebox_fleet_metrics_timestamp_seconds` gives their age.
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
from workflows.workspace.enums import Phase

READ_INTERVAL = timedelta(seconds=10)
"""Prometheus scrapes every 15 s or slower."""

log: structlog.stdlib.BoundLogger = structlog.get_logger("fleet_metrics")

READ_AT = Gauge("onebox_fleet_metrics_timestamp_seconds", "When the fleet metrics were last read.")
WORKSPACES = Gauge("onebox_workspaces", "Workspaces that are not deleted, by phase.", ["phase"])
CURRENT_GENERATIONS = Gauge(
    "onebox_generations_current", "Open generations: workspaces that should have a box."
)
STALE = Gauge("onebox_boxes_stale", "Boxes of open generations with stale heartbeats.")
VIOLATIONS = Gauge(
    "onebox_invariant_violations",
    "Current violations of an invariant; must be 0. I1: workspaces with two live instances in EC2. "
    "I4: generations with too many live tokens. I9: online workspaces without heartbeats. I10: delegations "
    "open after they expired.",
    ["invariant"],
)
MAX_INSTANCES = Gauge(
    "onebox_live_instances_per_workspace_max", "The largest number of live instances of one workspace."
)
INSTANCES = Gauge(
    "onebox_live_instances", "Instances with this control plane's owner tag that are pending or running."
)
MAX_TOKENS = Gauge(
    "onebox_live_tokens_per_generation_max", "The largest number of live tokens of one generation."
)
FROZEN = Gauge("onebox_fleet_frozen", "1 while automatic recreates are stopped.")
RECREATING = Gauge("onebox_automatic_recreates", "Automatic recreates in progress.")
RECREATE_LIMIT = Gauge(
    "onebox_automatic_recreates_limit", "Maximum number of automatic recreates in progress."
)
HEARTBEAT_INTAKE_AGE = Gauge(
    "onebox_heartbeat_intake_age_seconds", "Seconds since a register API last stored heartbeats."
)
WATCHDOG_AT = Gauge("onebox_watchdog_timestamp_seconds", "When the last watchdog round ended.")
ORPHAN_SWEEP_AT = Gauge(
    "onebox_orphan_sweep_timestamp_seconds", "When the orphan sweep last listed EC2's instances."
)
ORPHANS = Gauge(
    "onebox_orphans",
    "Instances and DNS names with our tags that no generation owns, by verdict.",
    ["verdict"],
)
OUTBOX = Gauge("onebox_outbox_rows", "Outbox rows that are not delivered to workflows yet.", ["outbox"])
OUTBOX_AGE = Gauge("onebox_outbox_age_seconds", "Age of the oldest undelivered workspace event.")
DELEGATIONS = Gauge("onebox_delegations", "Open delegations, by state.", ["state"])
ENDED = Gauge(
    "onebox_delegations_ended_last_hour", "Delegations that ended within the last hour, by state.", ["state"]
)
OLDEST_UNACKED = Gauge(
    "onebox_delegation_oldest_unacked_seconds",
    "Age of the oldest delivered delegation without an acknowledgement.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetMetricsReader:
    """Reads the fleet metrics until cancelled."""

    pool: Pool
    policy: FleetPolicy
    expire: timedelta

    async def run(self) -> None:
        """Read at an interval; retry while the database is unavailable."""
        while True:
            try:
                await self.read()
            except (StoreUnavailable, psycopg.Error) as error:
                # Includes permanent errors such as a missing migration: the worker must run without metrics.
                log.warning("fleet_metrics.unavailable", error=type(error).__name__)
            await asyncio.sleep(READ_INTERVAL.total_seconds())

    async def read(self) -> None:
        """Read once and export the values."""
        async with connection(self.pool) as conn:
            metrics = await metrics_queries.read(conn, expire=self.expire)
            fleet = await recreate_permits.read_counts(conn)
        decision = decide(fleet, self.policy)
        _export(metrics)
        FROZEN.set(decision.frozen is not None or metrics.watchdog_frozen)
        RECREATING.set(fleet.recreating)
        RECREATE_LIMIT.set(decision.max_concurrent)
        READ_AT.set(time.time())


def _export(metrics: FleetMetrics) -> None:
    CURRENT_GENERATIONS.set(metrics.running)
    STALE.set(metrics.stale)
    _set_each(WORKSPACES, metrics.phases, all_of=Phase)
    VIOLATIONS.labels("I1").set(metrics.workspaces_with_duplicates or 0)
    VIOLATIONS.labels("I4").set(metrics.generations_with_extra_tokens)
    VIOLATIONS.labels("I9").set(metrics.online_but_stale)
    VIOLATIONS.labels("I10").set(metrics.overdue)
    MAX_INSTANCES.set(metrics.max_per_workspace or 0)
    INSTANCES.set(metrics.running_instances or 0)
    MAX_TOKENS.set(metrics.max_live_tokens)
    HEARTBEAT_INTAKE_AGE.set(metrics.intake_age or 0)
    WATCHDOG_AT.set(_seconds(metrics.watchdog_ran_at))
    ORPHAN_SWEEP_AT.set(_seconds(metrics.listed_at))
    _set_each(ORPHANS, metrics.orphans, all_of=tuple(each for each in OrphanAction if each.shown))
    OUTBOX.labels("workspaces").set(metrics.workspace_events)
    OUTBOX.labels("delegations").set(metrics.delegation_events)
    OUTBOX_AGE.set(metrics.workspace_events_age or 0)
    _set_each(DELEGATIONS, metrics.delegations, all_of=set(DelegationState) - TERMINAL)
    _set_each(ENDED, metrics.delegations_ended, all_of=TERMINAL)
    OLDEST_UNACKED.set(metrics.oldest_unacked_age or 0)


def _set_each(gauge: Gauge, counts: dict[str, int], *, all_of: Iterable[str]) -> None:
    """Set all values of the label, including those with a count of 0."""
    for value in all_of:
        gauge.labels(value).set(counts.get(value, 0))


def _seconds(at: datetime | None) -> float:
    return 0 if at is None else at.timestamp()
