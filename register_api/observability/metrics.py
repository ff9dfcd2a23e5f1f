"""What the register API counts: calls by their answers, how long they took, what register calls came to.

Of one process. No label names a workspace, a source or a token.
"""

from functools import cache

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
    "From a call's head to its answer.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
REGISTER_CALLS = Counter(
    "onebox_register_calls", "Register calls that were judged, by what they came to and what they proved.",
    ["code", "identity"],
)  # fmt: skip
FIRST_HEARTBEATS = Counter(
    "onebox_first_heartbeats", "First counted beats of a generation's box, or after silence."
)
REGISTER_ALERTS = Counter("onebox_register_alerts", "Register calls that a human should look into.", ["code"])


@cache
def calls(operation: str, status: str, code: str) -> Counter:
    """The series of calls with this answer; finding it costs more than counting."""
    return CALLS.labels(operation, status, code)


@cache
def seconds(operation: str) -> Histogram:
    """The series of an operation's durations."""
    return CALL_SECONDS.labels(operation)


# Series that are there from the start: the first of a kind is an increase, too.
for code in ErrorCode:
    REGISTER_ALERTS.labels(code)
for operation in OPERATIONS:
    CALL_SECONDS.labels(operation.name)
for code in (ErrorCode.PLATFORM_UNAVAILABLE, ErrorCode.INTERNAL_ERROR):
    for operation in OPERATIONS:
        CALLS.labels(operation.name, "503" if code is ErrorCode.PLATFORM_UNAVAILABLE else "500", code)
