"""Decrypts the payloads of recorded histories in place; leaves clear text unchanged."""

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import WorkflowHistory
from temporalio.converter import PayloadCodec

from workflows.shared.data_converter import DATA_CONVERTER
from workflows.shared.encryption import ENCODING

_ENCODED_FAILURE = b"Encoded failure"
"""The SDK's placeholder for an encrypted failure message."""


async def decrypt(history: WorkflowHistory, codec: PayloadCodec) -> None:
    """Decrypt all payloads of a history, in place. Raises `KeyUnknown`."""
    for event in history.events:
        raw = event.SerializeToString()
        # Most events have no encrypted payload, and a byte search is much faster than a walk of the message.
        if ENCODING in raw or _ENCODED_FAILURE in raw:
            await decrypt_message(event, codec)


async def decrypt_message(message: Message, codec: PayloadCodec) -> None:
    """Decrypt all payloads in a message, in place. Raises `KeyUnknown`."""
    parts = list(_parts(message))
    payloads = [part for part in parts if isinstance(part, Payload)]
    for payload, clear in zip(payloads, await codec.decode(payloads), strict=True):
        payload.CopyFrom(clear)
    for part in parts:
        if isinstance(part, Failure) and part.HasField("encoded_attributes"):
            _read_attributes(part)


def _read_attributes(failure: Failure) -> None:
    """Restore message and stack trace, as the SDK does when it converts a failure to an exception."""
    attributes = DATA_CONVERTER.payload_converter.from_payloads([failure.encoded_attributes])[0]
    if isinstance(attributes, dict):
        failure.message = str(attributes.get("message", ""))
        failure.stack_trace = str(attributes.get("stack_trace", ""))
        failure.ClearField("encoded_attributes")


def _parts(message: Message) -> Iterator[Message]:
    """All payloads and failures in a message, at any depth."""
    if isinstance(message, Payload):
        yield message
        return
    if isinstance(message, Failure):
        yield message
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None:
            for part in _messages(value):
                yield from _parts(part)


def _messages(value: Any) -> list[Message]:
    """The messages in a field's value: a single one, a list, or a map's values."""
    if isinstance(value, Message):
        return [value]
    members = value.values() if hasattr(value, "values") else value
    return [member for member in members if isinstance(member, Message)]
