"""Payload conversion: pydantic's, except that a payload that cannot be decoded reaches its handler.

The handler rejects it. An error in the converter would fail the workflow task again and again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DataConverter
from typing_extensions import override


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Placeholder for a payload that does not match its encoding."""

    reason: str


class TolerantPayloadConverter(PydanticPayloadConverter):
    """Pydantic's converter; without type hints, a payload that cannot be decoded becomes `Undecodable`."""

    @override
    def from_payloads(self, payloads: Sequence[Payload], type_hints: list[type] | None = None) -> list[Any]:
        if type_hints:
            return super().from_payloads(payloads, type_hints)
        return [self._tolerantly(payload) for payload in payloads]

    def _tolerantly(self, payload: Payload) -> object:
        try:
            return super().from_payloads([payload])[0]
        except (ValueError, KeyError, RuntimeError) as error:
            return Undecodable(reason=f"{type(error).__name__}: the payload cannot be decoded")


DATA_CONVERTER = DataConverter(payload_converter_class=TolerantPayloadConverter)
"""The data converter of every Onebox client and worker, without encryption."""
