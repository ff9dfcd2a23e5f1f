"""A metric and a span for every AWS call, by botocore's events. Reads no parameters."""

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
    """Register the handlers with a client's events."""
    events.register("before-call", _before)
    events.register("after-call", _after)
    events.register("after-call-error", _after_error)


# botocore passes more keyword arguments than these handlers need.
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
    # This event has the operation in its name only: after-call-error.SERVICE.OPERATION.
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
