"""The IDs of a generation's trace and root span, derived from workspace ID and generation.

All processes derive the same IDs, so no trace context has to pass through boxes or the register API. Standard
library only.
"""

import hashlib
from dataclasses import dataclass

_TRACE_BYTES, _SPAN_BYTES = 16, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationTrace:
    """Trace and span ID in OpenTelemetry's format; never 0, which is invalid there."""

    trace_id: int
    span_id: int
    """ID of the root span, which covers the whole provisioning."""


def of_generation(workspace_id: str, generation: int) -> GenerationTrace:
    """The trace of the provisioning of a generation."""
    digest = hashlib.sha256(f"onebox trace {workspace_id} {generation}".encode()).digest()
    return GenerationTrace(
        trace_id=int.from_bytes(digest[:_TRACE_BYTES]) or 1,
        span_id=int.from_bytes(digest[_TRACE_BYTES : _TRACE_BYTES + _SPAN_BYTES]) or 1,
    )
