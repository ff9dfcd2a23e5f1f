"""Spans: one trace per generation, from its request to `online`.

Without a tracer provider (`workers/telemetry/tracing.py`) spans are no-ops. Attributes are names, codes, IDs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, StatusCode, TraceFlags
from typing_extensions import override

from workflows.shared import trace_ids
from workflows.shared.trace_ids import GenerationTrace

Attributes = Mapping[str, str | int | bool]

_tracer = trace.get_tracer("onebox")

_fixed_ids: ContextVar[GenerationTrace | None] = ContextVar("fixed_ids", default=None)


class FixedIdGenerator(RandomIdGenerator):
    """Random IDs, except for the root span of a generation: its children are emitted before it."""

    @override
    def generate_trace_id(self) -> int:
        fixed = _fixed_ids.get()
        return super().generate_trace_id() if fixed is None else fixed.trace_id

    @override
    def generate_span_id(self) -> int:
        fixed = _fixed_ids.get()
        return super().generate_span_id() if fixed is None else fixed.span_id


@contextmanager
def span(name: str, *, of: tuple[str, int] | None, attributes: Attributes) -> Iterator[Span]:
    """A span around the block, in the trace of a generation or in a new trace."""
    context = None if of is None else _parent_context(*of)
    with _tracer.start_as_current_span(
        name, context, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as opened:
        yield opened


def mark_failed(opened: Span, code: str) -> None:
    """Set the span's status to an error with this code."""
    opened.set_status(StatusCode.ERROR, code)


def emit_span(
    name: str, *, of: tuple[str, int], start: datetime, end: datetime | None = None, attributes: Attributes
) -> None:
    """Emit a finished span in a generation's trace. It ends now by default."""
    emitted = _tracer.start_span(
        name, _parent_context(*of), start_time=_nanoseconds(start), attributes=attributes
    )
    emitted.end(_nanoseconds(end or datetime.now(UTC)))


def emit_provisioning_span(*, of: tuple[str, int], start: datetime, end: datetime) -> None:
    """Emit the root span of a generation's trace: from its request to `online`."""
    workspace_id, generation = of
    token = _fixed_ids.set(trace_ids.of_generation(workspace_id, generation))
    try:
        root = _tracer.start_span(
            "recreate",
            Context(),
            start_time=_nanoseconds(start),
            attributes={"onebox.workspace": workspace_id, "onebox.generation": generation},
        )
    finally:
        _fixed_ids.reset(token)
    root.end(_nanoseconds(end))


def _parent_context(workspace_id: str, generation: int) -> Context:
    ids = trace_ids.of_generation(workspace_id, generation)
    root = SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(root), Context())


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
