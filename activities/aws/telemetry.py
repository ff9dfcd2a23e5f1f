"""Every call to AWS as a figure and a span, by botocore's events.

It changes no call, and reads no parameter.
"""

import time
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from activities.telemetry import metrics, tracing

if TYPE_CHECKING:
    from botocore.hooks import BaseEventHooks
    from botocore.model import OperationModel

_STARTED, _SPAN = "onebox_started", "onebox_span"

_tracer = trace.get_tracer("onebox")


def instrument(events: "BaseEventHooks") -> None:
    """From now on; the client's own events."""
    events.register("before-call", _before)
    events.register("after-call", _after)
    events.register("after-call-error", _after_error)


# botocore's events bring more members than are named here, and as keywords: each handler takes what it needs.
def _before(model: "OperationModel", context: MutableMapping[str, Any], **_: object) -> None:
    service = model.service_model.service_id.hyphenize()
    context[_STARTED] = time.monotonic()
    context[_SPAN] = _tracer.start_span(
        f"{service} {model.name}",
        kind=SpanKind.CLIENT,
        attributes={"rpc.system": "aws-api", "rpc.service": service, "rpc.method": model.name},
    )


def _after(
    model: "OperationModel", context: Mapping[str, Any], parsed: Mapping[str, Any], **_: object
) -> None:
    error = parsed.get("Error")
    _count(model, context, "ok" if not error else str(error.get("Code") or "unknown"))


def _after_error(event_name: str, exception: Exception, context: Mapping[str, Any], **_: object) -> None:
    # This event names its operation only in its own name: after-call-error.SERVICE.OPERATION.
    service, operation = event_name.split(".", 2)[1:]
    _record(service, operation, context, type(exception).__name__)


def _count(model: "OperationModel", context: Mapping[str, Any], code: str) -> None:
    _record(model.service_model.service_id.hyphenize(), model.name, context, code)


def _record(service: str, operation: str, context: Mapping[str, Any], code: str) -> None:
    metrics.AWS_CALLS.labels(service, operation, code).inc()
    started, span = context.get(_STARTED), context.get(_SPAN)
    if started is not None:
        metrics.AWS_SECONDS.labels(service, operation).observe(time.monotonic() - started)
    if span is not None:
        if code != "ok":
            tracing.mark_failed(span, code)
        span.end()
