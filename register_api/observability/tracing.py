"""Spans of a box's way to online, as part of its generation's trace.

Boxes send no trace context. The trace ID follows from workspace and generation; attributes hold only names
and codes.
"""

import time
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from workflows.shared import trace_ids

_tracer = trace.get_tracer("onebox")


def emit_span(
    name: str, workspace_id: str, generation: int, *, seconds: float, attributes: Mapping[str, str]
) -> None:
    """Emit the span of a call that ends now and took `seconds`."""
    ids = trace_ids.of_generation(workspace_id, generation)
    parent = SpanContext(
        ids.trace_id, ids.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED)
    )
    now = time.time_ns()
    span = _tracer.start_span(
        name,
        trace.set_span_in_context(NonRecordingSpan(parent), Context()),
        kind=SpanKind.SERVER,
        start_time=now - int(seconds * 1e9),
        attributes={"onebox.workspace": workspace_id, "onebox.generation": generation, **attributes},
    )
    span.end(now)
