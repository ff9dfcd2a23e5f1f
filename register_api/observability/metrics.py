"""Metrics of one API process: calls by response, their durations, and register decisions.

No label names a workspace, a source address or a token.
"""

from prometheus_client import Counter, Histogram

from register_api.http.error_codes import ErrorCode
from register_api.schema.endpoints import OPERATIONS

OK, UNROUTED = "ok", "none"

CALLS = Counter(
    "onebox_api_calls", "Calls answered, by operation, status and error code (or ok).",
    ["operation", "status", "code"],
)  # fmt: skip
CALL_SECONDS = Histogram(
    "onebox_api_call_seconds",
    "Time from a request's head to its response, in seconds.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REGISTER_CALLS = Counter(
    "onebox_register_calls", "Register calls decided, by result code and caller identity.",
    ["code", "identity"],
)  # fmt: skip
FIRST_HEARTBEATS = Counter(
    "onebox_first_heartbeats", "Counted heartbeats that were a generation's first, or its first after a gap."
)
REGISTER_ALERTS = Counter(
    "onebox_register_alerts", "Register calls that need an operator's attention.", ["code"]
)

# Create these series at start: an alert on an increase misses a counter that appears with the value 1.
for code in ErrorCode:
    REGISTER_ALERTS.labels(code)
for operation in OPERATIONS:
    CALL_SECONDS.labels(operation.name)
    CALLS.labels(operation.name, "503", ErrorCode.PLATFORM_UNAVAILABLE)
    CALLS.labels(operation.name, "500", ErrorCode.INTERNAL_ERROR)
