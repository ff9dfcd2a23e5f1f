"""Reads payloads as plain values: objects, lists, texts and times.

A value of another type is read as empty, because senders may send anything.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from temporalio.api.common.v1 import Payload, Payloads

from workflows.shared.data_converter import DATA_CONVERTER


def first_object(payloads: Payloads) -> dict[str, object]:
    """The first value if it is an object, else an empty one."""
    if not payloads.payloads:
        return {}
    value = DATA_CONVERTER.payload_converter.from_payloads(payloads.payloads)[0]
    return value if isinstance(value, dict) else {}


def text(payload: Payload) -> str:
    """The payload's value if it is a string, else an empty one."""
    if not payload.data:
        return ""
    value = DATA_CONVERTER.payload_converter.from_payloads([payload])[0]
    return value if isinstance(value, str) else ""


def objects(values: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """The objects of a list member."""
    value = values.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def object_in(values: Mapping[str, object], key: str) -> dict[str, object]:
    """An object member, or an empty one."""
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def texts(values: Mapping[str, object], key: str) -> list[str]:
    """The strings of a list member."""
    value = values.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def text_in(values: Mapping[str, object], key: str) -> str:
    """A string member, or an empty one."""
    value = values.get(key)
    return value if isinstance(value, str) else ""


def number_in(values: Mapping[str, object], key: str) -> int | None:
    """An integer member, or None."""
    value = values.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def time_in(values: Mapping[str, object], key: str) -> datetime | None:
    """A time member in UTC, or None."""
    try:
        found = datetime.fromisoformat(text_in(values, key))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
