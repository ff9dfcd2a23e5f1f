"""Temporal schedules of the periodic workflows. Every worker checks that they exist with its settings.

A schedule that an operator has paused stays paused.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from prometheus_client import Counter, Gauge
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from workflows.shared.names import (
    REPAIR_SCHEDULE,
    REPAIR_TYPE,
    SWEEP_SCHEDULE,
    SWEEP_TYPE,
    TASK_QUEUE,
    WATCHDOG_SCHEDULE,
    WATCHDOG_TYPE,
)

CATCHUP_WINDOW = timedelta(seconds=10)
"""The server's minimum. A missed run needs no catch-up: the next run covers the same work."""

MAX_RUN_TIME = timedelta(minutes=5)

RPC_TIMEOUT = timedelta(seconds=10)

RETRY_DELAY = timedelta(seconds=5)

log: structlog.stdlib.BoundLogger = structlog.get_logger("schedules")

PAUSED = Gauge("onebox_schedule_paused", "1 while a schedule is paused.", ["schedule"])
RECREATED = Counter(
    "onebox_schedules_recreated", "Schedules that were lost and that this worker created again.", ["schedule"]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicWorkflow:
    """A short workflow that a schedule starts at an interval."""

    schedule_id: str
    workflow_type: str
    interval: timedelta
    summary: str


def watchdog(interval: timedelta) -> PeriodicWorkflow:
    """The watchdog's schedule."""
    return PeriodicWorkflow(
        schedule_id=WATCHDOG_SCHEDULE,
        workflow_type=WATCHDOG_TYPE,
        interval=interval,
        summary="requests new boxes for workspaces that need one",
    )


def sweep(interval: timedelta) -> PeriodicWorkflow:
    """The orphan sweep's schedule."""
    return PeriodicWorkflow(
        schedule_id=SWEEP_SCHEDULE,
        workflow_type=SWEEP_TYPE,
        interval=interval,
        summary="removes instances and DNS names that no generation owns",
    )


def repair(interval: timedelta) -> PeriodicWorkflow:
    """The schedule that resets workflows stuck on non-determinism errors."""
    return PeriodicWorkflow(
        schedule_id=REPAIR_SCHEDULE,
        workflow_type=REPAIR_TYPE,
        interval=interval,
        summary="resets workflows stuck on non-determinism errors",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleKeeper:
    """Keeps the schedules at an interval, until cancelled."""

    client: Client
    periodic: Sequence[PeriodicWorkflow]
    interval: timedelta
    _states: dict[str, ScheduleState] = field(default_factory=dict, init=False)
    """The last observed state by schedule ID: a schedule that is created again is paused as it was."""

    async def run(self) -> None:
        """Check at the interval; retry while the server is unavailable."""
        while True:
            delay = self.interval
            try:
                await self.check()
            except RPCError as error:
                log.warning("schedules.refused", error=error.message)
                delay = min(delay, RETRY_DELAY)
            await asyncio.sleep(delay.total_seconds())

    async def check(self) -> None:
        """Create each schedule, or update an existing one; keeps its pause. Raises `RPCError`."""
        for one in self.periodic:
            handle, wanted = self.client.get_schedule_handle(one.schedule_id), _schedule(one)
            try:
                found = (await handle.describe(rpc_timeout=RPC_TIMEOUT)).schedule
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
                await self._create(one.schedule_id, wanted)
                continue
            self._observe(one.schedule_id, found.state)
            if _comparable(found) != _comparable(wanted):
                await handle.update(_updater(wanted), rpc_timeout=RPC_TIMEOUT)
                log.info("schedule.updated", schedule=one.schedule_id)

    async def _create(self, schedule_id: str, wanted: Schedule) -> None:
        before = self._states.get(schedule_id)
        if before is not None:
            wanted.state = ScheduleState(paused=before.paused, note=before.note)
        try:
            await self.client.create_schedule(schedule_id, wanted, rpc_timeout=RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:
            return  # another worker was faster
        if before is None:
            log.info("schedule.created", schedule=schedule_id)
        else:
            RECREATED.labels(schedule_id).inc()
            log.warning("schedule.recreated", schedule=schedule_id, paused=before.paused)
        self._observe(schedule_id, wanted.state)

    def _observe(self, schedule_id: str, state: ScheduleState) -> None:
        before = self._states.get(schedule_id)
        if state.paused and (before is None or not before.paused):
            log.warning("schedule.paused", schedule=schedule_id, note=state.note)
        elif before is not None and before.paused and not state.paused:
            log.info("schedule.resumed", schedule=schedule_id)
        PAUSED.labels(schedule_id).set(state.paused)
        self._states[schedule_id] = state


def _updater(wanted: Schedule) -> Callable[[ScheduleUpdateInput], ScheduleUpdate | None]:
    def update(current: ScheduleUpdateInput) -> ScheduleUpdate | None:
        schedule = current.description.schedule
        if _comparable(schedule) == _comparable(wanted):
            return None
        schedule.spec, schedule.action, schedule.policy = wanted.spec, wanted.action, wanted.policy
        return ScheduleUpdate(schedule=schedule)

    return update


def _schedule(one: PeriodicWorkflow) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            one.workflow_type,
            id=one.schedule_id,
            task_queue=TASK_QUEUE,
            execution_timeout=MAX_RUN_TIME,
            static_summary=one.summary,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=one.interval)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCHUP_WINDOW),
    )


def _comparable(schedule: Schedule) -> tuple[object, ...]:
    """The parts of a schedule that the worker sets, comparable with the server's description."""
    action, policy = schedule.action, schedule.policy
    started = (
        (action.workflow, action.id, action.task_queue, action.execution_timeout)
        if isinstance(action, ScheduleActionStartWorkflow)
        else None
    )
    intervals = [(each.every, each.offset or timedelta()) for each in schedule.spec.intervals]
    return started, intervals, policy.overlap, policy.catchup_window
