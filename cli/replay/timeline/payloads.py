"""Payloads as plain values: objects, lists, texts and times.

Knows no message; what isn't what was expected becomes empty, since anybody may send anything.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

from temporalio.api.common.v1 import Payload, Payloads

from workflows.shared.data_converter import DATA_CONVERTER


def first_object(payloads: Payloads) -> dict[str, object]:
    """The first value, where it is an object."""
    if not payloads.payloads:
        return {}
    value = DATA_CONVERTER.payload_converter.from_payloads(payloads.payloads)[0]
    return value if isinstance(value, dict) else {}


def text(payload: Payload) -> str:
    """A single payload, where it is a text."""
    if not payload.data:
        return ""
    value = DATA_CONVERTER.payload_converter.from_payloads([payload])[0]
    return value if isinstance(value, str) else ""


def objects(given: Mapping[str, object], key: str) -> list[dict[str, object]]:
    """A list of objects."""
    value = given.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list | tuple) else []


def object_in(given: Mapping[str, object], key: str) -> dict[str, object]:
    """An object in an object."""
    value = given.get(key)
    return value if isinstance(value, dict) else {}


def texts(given: Mapping[str, object], key: str) -> list[str]:
    """A list of texts."""
    value = given.get(key)
    return [item for item in value if isinstance(item, str)] if isinstance(value, list | tuple) else []


def text_in(given: Mapping[str, object], key: str) -> str:
    """A text, or an empty one."""
    value = given.get(key)
    return value if isinstance(value, str) else ""


def number_in(given: Mapping[str, object], key: str) -> int | None:
    """A whole number."""
    value = given.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def time_in(given: Mapping[str, object], key: str) -> datetime | None:
    """An instant, in UTC."""
    try:
        found = datetime.fromisoformat(text_in(given, key))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
