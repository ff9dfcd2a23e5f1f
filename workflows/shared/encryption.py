"""Encryption of payloads with AES-256-GCM: clients and workers encrypt, Temporal stores only ciphertext.

InvalidPayloadKeys    the configured keys are invalid
KeyUnknown            a payload was encrypted with a key that is not configured
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
"""The encoding of Temporal's samples: UI and CLI show such payloads as encrypted."""

KEY_ID = "encryption-key-id"

KEY_BYTES = 32

NONCE_BYTES = 12
"""Random for each payload: safe for 2^32 payloads per key (NIST SP 800-38D, section 8.3)."""

OFF = "off"
"""As the first entry: new payloads are not encrypted, and encrypted ones are still decrypted."""

_ID = re.compile(r"[a-z0-9-]{1,16}")


class InvalidPayloadKeys(ValueError):
    """The configured keys are invalid. The message never contains a key."""


class KeyUnknown(Exception):
    """A payload was encrypted with a key that is not configured here."""

    def __init__(self, key_id: str) -> None:
        super().__init__(
            f"a payload was encrypted with key {key_id!r}, which is not in PAYLOAD_KEYS: add it there"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadKeys:
    """The keys by their IDs. All of them decrypt."""

    current: str | None
    """The ID of the key that encrypts; None: payloads are not encrypted."""
    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "PayloadKeys":
        """Parse `[off,]id:hex[,id:hex …]`; an empty text means no keys. Raises `InvalidPayloadKeys`."""
        entries = [entry.strip() for entry in text.split(",")] if text.strip() else []
        off = not entries or entries[0] == OFF
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(entries, start=1):
            if number == 1 and off:
                continue
            key_id, colon, digits = entry.partition(":")
            if not colon or key_id in keys or key_id == OFF or not _ID.fullmatch(key_id):
                raise InvalidPayloadKeys(
                    f"entry {number} is not ID:HEX with a unique ID (1 to 16 of a-z, 0-9, -)"
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
    """Encrypts whole payloads with their metadata. Payloads that are not encrypted pass unchanged.

    Decoding fails if the key is missing, also without any keys. Otherwise a worker would treat the payload as
    malformed, and record the rejection of a valid request in the workflow's history.
    """

    def __init__(self, keys: PayloadKeys) -> None:
        self._current = keys.current
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.keys.items()}

    @override
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt with the current key; without one, return the payloads unchanged."""
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
            # The payload is corrupt: its handler rejects it, like any malformed payload. An error here would
            # fail the workflow task again and again.
            return payload


def converter(keys: PayloadKeys) -> DataConverter:
    """The data converter of every Onebox client and worker, with these keys.

    If payloads are encrypted, so are the messages and stack traces of failures.
    """
    encrypting = replace(DATA_CONVERTER, payload_codec=Encryption(keys))
    if keys.current is None:
        return encrypting
    return replace(encrypting, failure_converter_class=DefaultFailureConverterWithEncodedAttributes)
