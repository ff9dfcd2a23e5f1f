"""Timeouts and retry policies of activities, by destination.

These policies cover failures that last seconds. The lifecycle retries longer ones, and shows them.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio.common import Priority, RetryPolicy

from workflows.shared.names import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE

MANUAL_PRIORITY = Priority(priority_key=1)
ROLLOUT_PRIORITY = Priority(priority_key=5)
"""The lowest of Temporal's five default levels; an activity without a priority has level 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityOptions:
    """Where an activity runs, how long it may take, and how often it is retried."""

    task_queue: str
    start_to_close: timedelta
    heartbeat: timedelta | None
    retry: RetryPolicy


DATABASE = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(seconds=15),
    heartbeat=None,
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=2),
        maximum_attempts=5,
    ),
)
"""A statement takes milliseconds, a database failover some seconds."""

FLEET_PERMIT = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(seconds=30),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=2),
        maximum_attempts=3,
    ),
)
"""A query and a call to EC2. If all attempts fail, the request is deferred."""

WATCH = replace(FLEET_PERMIT, retry=RetryPolicy(maximum_attempts=1))
"""No retry: the schedule starts the next round soon."""

REPAIR = replace(WATCH, start_to_close=timedelta(seconds=60), retry=RetryPolicy(maximum_attempts=2))
"""Fetching and replaying a history of ten thousand events takes seconds."""

RECORD = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(seconds=15),
    heartbeat=None,
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=0,
    ),
)
"""Retried without limit: the status has no other place than PostgreSQL."""

EC2 = ActivityOptions(
    task_queue=EC2_TASK_QUEUE,
    start_to_close=timedelta(seconds=120),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10), maximum_attempts=4
    ),
)
"""A call takes at most 20 s; a termination is polled for a minute. Activities send a heartbeat each second,
so a dead worker is detected after 10 s."""

SNAPSHOT = replace(
    EC2,
    start_to_close=timedelta(seconds=30),
    retry=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
)
"""Two attempts only: a recreate must not wait for a snapshot, and the next recreate requests one again."""

AWS = replace(EC2, task_queue=TASK_QUEUE)
"""EC2 reads and Route 53 writes: outside the rate limit for EC2 mutations."""

DELIVERY = ActivityOptions(
    task_queue=DELEGATIONS_TASK_QUEUE,
    start_to_close=timedelta(seconds=90),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=0,
    ),
)
"""A target may take a minute to answer. Retried without limit while PostgreSQL is unavailable."""

BOX = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(seconds=90),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(maximum_attempts=2),
)
"""A model may take a minute to answer. The lifecycle decides about more canaries."""

ROLLOUT = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(minutes=15),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        maximum_attempts=0,
    ),
)
"""A watch lasts five minutes; five hundred recreate requests that all time out last ten. Retried without
limit while PostgreSQL or Temporal is unavailable."""
