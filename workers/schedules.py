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

from workflows.messages import (
    RESCUE_SCHEDULE,
    RESCUE_TYPE,
    SWEEP_SCHEDULE,
    SWEEP_TYPE,
    TASK_QUEUE,
    WATCHDOG_SCHEDULE,
    WATCHDOG_TYPE,
)

CATCH_UP = timedelta(seconds=10)
"""The least that the server allows: a round that was missed is not made up for, the next one sees more."""

LONGEST_ROUND = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A short workflow that is started again and again."""

    schedule_id: str
    workflow_type: str
    every: timedelta
    about: str


def watchdog(every: timedelta) -> Round:
    """The round of the watchdog."""
    return Round(
        schedule_id=WATCHDOG_SCHEDULE,
        workflow_type=WATCHDOG_TYPE,
        every=every,
        about="looks for workspaces that need another box",
    )


def sweep(every: timedelta) -> Round:
    """The round of the orphan sweep."""
    return Round(
        schedule_id=SWEEP_SCHEDULE,
        workflow_type=SWEEP_TYPE,
        every=every,
        about="looks for instances and DNS names that no generation claims",
    )


def rescue(every: timedelta) -> Round:
    """The round that takes up runs which no replay can go on with."""
    return Round(
        schedule_id=RESCUE_SCHEDULE,
        workflow_type=RESCUE_TYPE,
        every=every,
        about="takes up runs that no replay can go on with",
    )


async def ensure(client: Client, rounds: Sequence[Round]) -> None:
    """Make each schedule, or bring one that stands to its present form; its pause is left alone."""
    for one in rounds:
        schedule = _schedule(one)
        try:
            await client.create_schedule(one.schedule_id, schedule)
        except ScheduleAlreadyRunningError:
            await client.get_schedule_handle(one.schedule_id).update(_updating(schedule))


def _updating(wanted: Schedule) -> Callable[[ScheduleUpdateInput], ScheduleUpdate | None]:
    def update(standing: ScheduleUpdateInput) -> ScheduleUpdate | None:
        schedule = standing.description.schedule
        if _shape(schedule) == _shape(wanted):
            return None
        schedule.spec, schedule.action, schedule.policy = wanted.spec, wanted.action, wanted.policy
        return ScheduleUpdate(schedule=schedule)

    return update


def _schedule(one: Round) -> Schedule:
    return Schedule(
        action=ScheduleActionStartWorkflow(
            one.workflow_type,
            id=one.schedule_id,
            task_queue=TASK_QUEUE,
            execution_timeout=LONGEST_ROUND,
            static_summary=one.about,
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=one.every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
    )


def _shape(schedule: Schedule) -> tuple[object, ...]:
    """What is ours to say of a schedule, in a form that the server's answer has, too."""
    action, policy = schedule.action, schedule.policy
    started = (
        (action.workflow, action.id, action.task_queue, action.execution_timeout)
        if isinstance(action, ScheduleActionStartWorkflow)
        else None
    )
    rhythm = [(each.every, each.offset or timedelta()) for each in schedule.spec.intervals]
    return started, rhythm, policy.overlap, policy.catchup_window
