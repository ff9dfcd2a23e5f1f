"""The schedules that go with a worker: made, or brought up to date, when one starts.

A schedule that a human has paused stays paused.
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

from workflows.workspace.messages import (
    REPAIR_SCHEDULE,
    REPAIR_TYPE,
    SWEEP_SCHEDULE,
    SWEEP_TYPE,
    TASK_QUEUE,
    WATCHDOG_SCHEDULE,
    WATCHDOG_TYPE,
)

CATCHUP_WINDOW = timedelta(seconds=10)
"""The least that the server allows: a round that was missed is not made up for, the next one sees more."""

MAX_RUN_TIME = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicWorkflow:
    """A short workflow that is started again and again."""

    schedule_id: str
    workflow_type: str
    interval: timedelta
    summary: str


def watchdog(interval: timedelta) -> PeriodicWorkflow:
    """The round of the watchdog."""
    return PeriodicWorkflow(
        schedule_id=WATCHDOG_SCHEDULE,
        workflow_type=WATCHDOG_TYPE,
        interval=interval,
        summary="looks for workspaces that need another box",
    )


def sweep(interval: timedelta) -> PeriodicWorkflow:
    """The round of the orphan sweep."""
    return PeriodicWorkflow(
        schedule_id=SWEEP_SCHEDULE,
        workflow_type=SWEEP_TYPE,
        interval=interval,
        summary="looks for instances and DNS names that no generation claims",
    )


def repair(interval: timedelta) -> PeriodicWorkflow:
    """The round that takes up runs which no replay can go on with."""
    return PeriodicWorkflow(
        schedule_id=REPAIR_SCHEDULE,
        workflow_type=REPAIR_TYPE,
        interval=interval,
        summary="takes up runs that no replay can go on with",
    )


async def ensure(client: Client, periodic: Sequence[PeriodicWorkflow]) -> None:
    """Make each schedule, or bring one that stands to its present form; its pause is left alone."""
    for one in periodic:
        schedule = _schedule(one)
        try:
            await client.create_schedule(one.schedule_id, schedule)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(one.schedule_id).update(_updater(schedule))


def _updater(wanted: Schedule) -> Callable[[ScheduleUpdateInput], ScheduleUpdate | None]:
    def update(standing: ScheduleUpdateInput) -> ScheduleUpdate | None:
        schedule = standing.description.schedule
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
    """What is ours to say of a schedule, in a form that the server's answer has, too."""
    action, policy = schedule.action, schedule.policy
    started = (
        (action.workflow, action.id, action.task_queue, action.execution_timeout)
        if isinstance(action, ScheduleActionStartWorkflow)
        else None
    )
    rhythm = [(each.every, each.offset or timedelta()) for each in schedule.spec.intervals]
    return started, rhythm, policy.overlap, policy.catchup_window
