"""Timeouts and retries of activities, by destination.

What the record should show is retried by the lifecycle; these policies bridge what passes in seconds.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from temporalio.common import Priority, RetryPolicy

from workflows.workspace.messages import DELEGATIONS_TASK_QUEUE, EC2_TASK_QUEUE, TASK_QUEUE
from workflows.workspace.requests import is_human, is_rollout_request
from workflows.workspace.state import Provisioning

MANUAL_PRIORITY = Priority(priority_key=1)
ROLLOUT_PRIORITY = Priority(priority_key=5)
"""The last of the five that a server has by default; what names none is in the middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityOptions:
    """Where an activity runs, how long it may take, and how often it is tried."""

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
"""A statement takes milliseconds; a failover of the database some seconds."""

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
"""A query and a look at EC2. Without an answer the request is deferred: that is an answer, too."""

WATCH = replace(FLEET_PERMIT, retry=RetryPolicy(maximum_attempts=1))
"""The next round comes by itself, and knows more."""

REPAIR = replace(WATCH, start_to_close=timedelta(seconds=60), retry=RetryPolicy(maximum_attempts=2))
"""A history of ten thousand events is fetched and replayed in seconds."""

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
"""Without the database there is nowhere else to say it, so it is tried until it is back."""

EC2 = ActivityOptions(
    task_queue=EC2_TASK_QUEUE,
    start_to_close=timedelta(seconds=120),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10), maximum_attempts=4
    ),
)
"""A call answers within 20 s, a termination is watched for a minute; a dead worker shows after 10 s,
for every activity sends a heartbeat each second."""

SNAPSHOT = replace(
    EC2,
    start_to_close=timedelta(seconds=30),
    retry=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=2),
)
"""A recreate must not wait for a snapshot: what two calls don't settle is left to the next recreate."""

AWS = replace(EC2, task_queue=TASK_QUEUE)
"""Reading EC2 and writing Route 53: as above, outside the rate limit of EC2's mutations."""

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
"""A target may take a minute to answer; without the database it is tried until that is back."""

BOX = ActivityOptions(
    task_queue=TASK_QUEUE,
    start_to_close=timedelta(seconds=90),
    heartbeat=timedelta(seconds=10),
    retry=RetryPolicy(maximum_attempts=2),
)
"""A model may think for a minute; whether to ask again is the lifecycle's decision."""

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
"""A watch lasts for five minutes; five hundred turns, none of them answered, for ten. A rollout waits for the
database and for Temporal, however long they are away: it has begun nothing that needs it."""


def step_priority(provisioning: Provisioning | None) -> Priority:
    """Which of the steps that wait in a queue, as for EC2's rate, is handed out first."""
    waiting = provisioning.requesters if provisioning is not None else ()
    if any(is_human(each) and not is_rollout_request(each) for each in waiting):
        return MANUAL_PRIORITY
    return ROLLOUT_PRIORITY if waiting and all(map(is_rollout_request, waiting)) else Priority.default
