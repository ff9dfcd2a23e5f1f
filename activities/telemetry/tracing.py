"""Spans of the trace that tells how a generation came to be, and of what belongs to none.

Without a provider (`workers/telemetry/tracing.py`) they cost nothing. Names, codes and IDs only.
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

_fixed_ids: ContextVar[GenerationTrace | None] = ContextVar("chosen_ids", default=None)


class FixedIdGenerator(RandomIdGenerator):
    """Random IDs, but for the first span of a generation's trace: its children were made before it ends."""

    @override
    def generate_trace_id(self) -> int:
        chosen = _fixed_ids.get()
        return super().generate_trace_id() if chosen is None else chosen.trace_id

    @override
    def generate_span_id(self) -> int:
        chosen = _fixed_ids.get()
        return super().generate_span_id() if chosen is None else chosen.span_id


@contextmanager
def span(name: str, *, of: tuple[str, int] | None, attributes: Attributes) -> Iterator[Span]:
    """A span around the block, in the trace of a workspace's generation or in one of its own."""
    context = None if of is None else _parent_context(*of)
    with _tracer.start_as_current_span(
        name, context, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as opened:
        yield opened


def mark_failed(opened: Span, code: str) -> None:
    """What the span is about has failed; the code says how, and nothing else does."""
    opened.set_status(StatusCode.ERROR, code)


def emit_span(
    name: str, *, of: tuple[str, int], start: datetime, end: datetime | None = None, attributes: Attributes
) -> None:
    """A span of a generation's trace that is over, or ends now."""
    told = _tracer.start_span(
        name, _parent_context(*of), start_time=_nanoseconds(start), attributes=attributes
    )
    told.end(_nanoseconds(end or datetime.now(UTC)))


def emit_provisioning_span(*, of: tuple[str, int], start: datetime, end: datetime) -> None:
    """The span that is the whole way of a generation to `online`."""
    workspace_id, generation = of
    token = _fixed_ids.set(trace_ids.of_generation(workspace_id, generation))
    try:
        told = _tracer.start_span(
            "recreate",
            Context(),
            start_time=_nanoseconds(start),
            attributes={"onebox.workspace": workspace_id, "onebox.generation": generation},
        )
    finally:
        _fixed_ids.reset(token)
    told.end(_nanoseconds(end))


def _parent_context(workspace_id: str, generation: int) -> Context:
    ids = trace_ids.of_generation(workspace_id, generation)
    whole = SpanContext(ids.trace_id, ids.span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(whole), Context())


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1_000
