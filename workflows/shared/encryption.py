"""Payloads that Temporal cannot read: encrypted on their way to it, decrypted on the way back (AES-256-GCM).

Nothing of it runs inside a workflow, and it reads no setting: the keys are given.

    InvalidPayloadKeys    the keys cannot be used as they are configured
    KeyUnknown            a payload was encrypted with a key that is not among them
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)
from typing_extensions import override

from workflows.shared.data_converter import DATA_CONVERTER

ENCODING = b"binary/encrypted"
"""As in Temporal's samples: UI and CLI show payloads of this encoding as encrypted."""

KEY_ID = "encryption-key-id"

KEY_BYTES = 32

NONCE_BYTES = 12
"""Random for each payload: good for 2^32 payloads of one key (NIST SP 800-38D, section 8.3)."""

OFF = "off"
"""In the place of the first key: nothing is encrypted, and what already is can be read."""

_ID = re.compile(r"[a-z0-9-]{1,16}")


class InvalidPayloadKeys(ValueError):
    """The keys cannot be used as they are configured; the text never holds a key."""


class KeyUnknown(Exception):
    """A payload was encrypted with a key that is not configured here."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"a payload was encrypted with the key {key_id!r}, which is not among PAYLOAD_KEYS: add it there"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadKeys:
    """The keys by their IDs; all of them decrypt."""

    current: str | None
    """The key that encrypts; None: nothing is encrypted."""
    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "PayloadKeys":
        """Read `[off,]id:hex[,id:hex …]`; an empty text is no key at all. Raises `InvalidPayloadKeys`."""
        entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
        off = not entries or entries[0] == OFF
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(entries, start=1):
            if number == 1 and off:
                continue
            key_id, colon, digits = entry.partition(":")
            if not colon or key_id in keys or key_id == OFF or not _ID.fullmatch(key_id):
                raise InvalidPayloadKeys(
                    f"entry {number} is not ID:HEX with an ID of its own (1 to 16 of a-z, 0-9, -)"
                )
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                raise InvalidPayloadKeys(f"the key {key_id!r} is not hexadecimal") from None
            if len(key) != KEY_BYTES:
                raise InvalidPayloadKeys(f"the key {key_id!r} has {len(key)} bytes, not {KEY_BYTES}")
            keys[key_id] = key
        return cls(current=None if off else next(iter(keys)), keys=keys)


NO_KEYS = PayloadKeys(current=None, keys={})


class Encryption(PayloadCodec):
    """Encrypts whole payloads, their metadata too; what isn't encrypted passes as it is.

    Without keys it still refuses what is encrypted. A worker that took it for garbage would record, in the
    workflow's own history, that it had rejected a request.
    """

    def __init__(self, keys: PayloadKeys) -> None:
        self._current = keys.current
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.keys.items()}

    @override
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt with the current key, if there is one."""
        return [payload if self._current is None else self._encrypted(payload) for payload in payloads]

    @override
    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt with the key that each payload names. Raises `KeyUnknown`."""
        return [self._decrypted(payload) for payload in payloads]

    def _encrypted(self, payload: Payload) -> Payload:
        key_id = self._current or ""
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[key_id].encrypt(nonce, payload.SerializeToString(), key_id.encode())
        return Payload(metadata={"encoding": ENCODING, KEY_ID: key_id.encode()}, data=nonce + sealed)

    def _decrypted(self, payload: Payload) -> Payload:
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        key_id = payload.metadata.get(KEY_ID, b"").decode(errors="replace")
        if not _ID.fullmatch(key_id):
            return payload
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyUnknown(key_id)
        nonce, sealed = payload.data[:NONCE_BYTES], payload.data[NONCE_BYTES:]
        try:
            return Payload.FromString(cipher.decrypt(nonce, sealed, key_id.encode()))
        except (InvalidTag, DecodeError, ValueError):
            # No key will ever open it: its handler rejects it, as it does other garbage. An error would stop
            # the workflow for good.
            return payload


def converter(keys: PayloadKeys) -> DataConverter:
    """What every Onebox client and worker uses, with these keys.

    Messages and stack traces of failures are text beside the payloads: where payloads are encrypted, they
    become payloads, too.
    """
    made = replace(DATA_CONVERTER, payload_codec=Encryption(keys))
    if keys.current is None:
        return made
    return replace(made, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)
