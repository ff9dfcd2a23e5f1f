"""The trace of a generation: its ID, and that of its first span, made from workspace and number alone.

Every process that does something for the generation finds the same trace: nothing has to be passed on by
boxes, which know no traces, nor by the register API, which knows no Temporal. Standard library only.
"""

import hashlib
from dataclasses import dataclass

_TRACE_BYTES, _SPAN_BYTES = 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationTrace:
    """IDs as OpenTelemetry has them; never 0, which would mean none."""

    trace_id: int
    span_id: int
    """Of the span that is the whole provisioning; all others are below it."""


def of_generation(workspace_id: str, generation: int) -> GenerationTrace:
    """The trace that tells how this generation came to be."""
    digest = hashlib.sha256(f"onebox trace {workspace_id} {generation}".encode()).digest()
    return GenerationTrace(
        trace_id=int.from_bytes(digest[:_TRACE_BYTES]) or 1,
        span_id=int.from_bytes(digest[_TRACE_BYTES : _TRACE_BYTES + _SPAN_BYTES]) or 1,
    )
