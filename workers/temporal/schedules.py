"""Temporal schedules of the periodic workflows, created or updated when a worker starts.

A schedule that an operator has paused stays paused.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

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


async def ensure(client: Client, periodic: Sequence[PeriodicWorkflow]) -> None:
    """Create each schedule, or update an existing one; keeps its pause. Raises `RPCError`."""
    for one in periodic:
        schedule = _schedule(one)
        try:
            await client.create_schedule(one.schedule_id, schedule)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(one.schedule_id).update(_updater(schedule))


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
