"""Metrics of the activities in this process: outcomes, changes, AWS calls.

Each is updated after the commit or the response that it counts. No label contains a workspace ID.
"""

import itertools

from prometheus_client import Counter, Histogram

from workflows.repair.rules import RepairOutcome
from workflows.workspace.requests import OutcomeKind, RequestKind

STEP_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Seconds, from a database write to a slow termination of an instance."""

ONLINE_BUCKETS = (1, 5, 10, 30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1800, 3600)
"""Seconds. A healthy box takes one to six minutes; the register deadline is ten minutes."""

REQUESTS = Counter(
    "onebox_requests", "Requests by outcome, each counted once.", ["kind", "outcome", "source"]
)
TIME_TO_ONLINE = Histogram(
    "onebox_time_to_online_seconds",
    "Seconds from the request for a generation to `online`, once per generation.",
    buckets=ONLINE_BUCKETS,
)
GENERATIONS_OPENED = Counter("onebox_generations_opened", "Generations opened.")
DNS_CHANGES = Counter("onebox_dns_changes", "Change batches that Route 53 accepted.", ["change"])
ORPHANS_TERMINATED = Counter("onebox_orphans_ended", "Orphan instances terminated.")
WORKFLOW_RUNS_STUCK = Counter(
    "onebox_workflow_runs_stuck",
    "Workflow runs found stuck on non-determinism errors, by result.",
    ["outcome"],
)
ACTIVITY_SECONDS = Histogram(
    "onebox_activity_seconds",
    "Duration of activity attempts, including failed ones.",
    ["activity"],
    buckets=STEP_BUCKETS,
)
ACTIVITY_FAILURES = Counter(
    "onebox_activity_failures",
    "Failed activity attempts, by error code.",
    ["activity", "code"],
)
AWS_CALLS = Counter(
    "onebox_aws_calls", "AWS calls by result: ok, the AWS error code, or the client error.",
    ["service", "operation", "code"],
)  # fmt: skip
AWS_SECONDS = Histogram(
    "onebox_aws_call_seconds",
    "Duration of AWS calls.",
    ["service", "operation"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20),
)

HUMAN, AUTOMATIC = "human", "automatic"

# Initialized to 0: `increase()` then also counts the first event of a kind.
for kind, outcome, source in itertools.product(RequestKind, OutcomeKind, (HUMAN, AUTOMATIC)):
    REQUESTS.labels(kind, outcome, source)
for result in RepairOutcome:
    WORKFLOW_RUNS_STUCK.labels(result)
for change in ("point", "remove"):
    DNS_CHANGES.labels(change)
