"""What activities count: outcomes, changes, calls to AWS. For the process that they run in.

Counts only what has happened: after a commit, after an answer. No label names a workspace.
"""

import itertools

from prometheus_client import Counter, Histogram

from workflows.repair.rules import RepairOutcome
from workflows.workspace.requests import OutcomeKind, RequestKind

STEP_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""From a write to the database to an instance that takes its time to end."""

ONLINE_BUCKETS = (1, 5, 10, 30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
"""A healthy box takes one to six minutes; the register deadline is ten."""

REQUESTS = Counter(
    "onebox_requests", "Requests recorded with their outcome, each once.", ["kind", "outcome", "source"]
)
TIME_TO_ONLINE = Histogram(
    "onebox_time_to_online_seconds",
    "From the request for a generation to the record saying online, once for each generation.",
    buckets=ONLINE_BUCKETS,
)
GENERATIONS_OPENED = Counter("onebox_generations_opened", "Generations opened.")
DNS_CHANGES = Counter("onebox_dns_changes", "Change batches that Route 53 took.", ["change"])
ORPHANS_TERMINATED = Counter("onebox_orphans_ended", "Instances that no generation claims, terminated.")
WORKFLOW_RUNS_STUCK = Counter(
    "onebox_workflow_runs_stuck",
    "Runs that no replay could go on with, by what became of them, each time.",
    ["outcome"],
)
ACTIVITY_SECONDS = Histogram(
    "onebox_activity_seconds",
    "How long one attempt of an activity took, failed ones too.",
    ["activity"],
    buckets=STEP_BUCKETS,
)
ACTIVITY_FAILURES = Counter(
    "onebox_activity_failures",
    "Failed attempts of activities, by the code on the record.",
    ["activity", "code"],
)
AWS_CALLS = Counter(
    "onebox_aws_calls", "Calls to AWS by their result: ok, AWS's error code, or the failure to get one.",
    ["service", "operation", "code"],
)  # fmt: skip
AWS_SECONDS = Histogram(
    "onebox_aws_call_seconds",
    "How long AWS took to answer.",
    ["service", "operation"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)

HUMAN, AUTOMATIC = "human", "automatic"

# Counters that are there from the start: the first of a kind is an increase, too.
for kind, outcome, source in itertools.product(RequestKind, OutcomeKind, (HUMAN, AUTOMATIC)):
    REQUESTS.labels(kind, outcome, source)
for fate in RepairOutcome:
    WORKFLOW_RUNS_STUCK.labels(fate)
for change in ("point", "remove"):
    DNS_CHANGES.labels(change)
