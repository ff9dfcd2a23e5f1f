"""Derives bootstrap secrets and instance tokens from the server keys.

Credentials are never stored: the database has SHA-256 hashes, nonces and 8-character prefixes.
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

MINIMUM_KEY_BYTES = 32
"""The output length of HMAC-SHA-256: shorter keys weaken it (RFC 2104, section 3)."""

_BOOTSTRAP = re.compile(r"ob1\.([a-z0-9-]{1,16})\.([1-9][0-9]{0,9})\.([A-Za-z0-9_-]{43})")


class InvalidServerKeys(ValueError):
    """SERVER_KEYS is invalid. The text never contains a key."""


@dataclass(frozen=True, slots=True)
class BootstrapSecret:
    """A bootstrap secret that was verified."""

    key_id: str
    generation: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerKeys:
    """The server keys by ID. New credentials are derived from the current one."""

    current: str
    keys: dict[str, bytes] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "ServerKeys":
        """Parse `id:hex[,id:hex …]`. The first key is the current one; the others only verify.

        Raises `InvalidServerKeys`.
        """
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(text.split(","), start=1):
            key_id, colon, digits = entry.strip().partition(":")
            if not colon or not re.fullmatch(r"[a-z0-9-]{1,16}", key_id) or key_id in keys:
                raise InvalidServerKeys(
                    f"entry {number} must be ID:HEX with a unique ID (1 to 16 characters of a-z, 0-9, -)"
                )
            try:
                key = bytes.fromhex(digits)
            except ValueError:
                raise InvalidServerKeys(f"the key {key_id!r} is not hexadecimal") from None
            if len(key) < MINIMUM_KEY_BYTES:
                raise InvalidServerKeys(
                    f"the key {key_id!r} has {len(key)} bytes; the minimum is {MINIMUM_KEY_BYTES}"
                )
            keys[key_id] = key
        return cls(current=next(iter(keys)), keys=keys)

    def bootstrap_secret(self, workspace_id: str, generation: int, *, key_id: str) -> str:
        """The bootstrap secret of a generation. Deterministic.

        Raises `KeyError` if the key is no longer configured.
        """
        mac = _mac(self.keys[key_id], "bootstrap", workspace_id, str(generation))
        return f"ob1.{key_id}.{generation}.{mac}"

    def verify_bootstrap(self, workspace_id: str, presented: str) -> BootstrapSecret | None:
        """The secret, if it belongs to this workspace, of any generation. Compares in constant time."""
        match = _BOOTSTRAP.fullmatch(presented)
        if match is None or match[1] not in self.keys:
            return None
        generation = int(match[2])
        expected = self.bootstrap_secret(workspace_id, generation, key_id=match[1])
        if not hmac.compare_digest(expected, presented):
            return None
        return BootstrapSecret(key_id=match[1], generation=generation, text=presented)

    def token(self, workspace_id: str, generation: int, *, nonce: bytes, key_id: str) -> str:
        """The instance token of a nonce: 43 characters, base64url. Deterministic."""
        return _mac(self.keys[key_id], "token", workspace_id, str(generation), nonce.hex())


def new_nonce() -> bytes:
    """A random nonce for a new token."""
    return secrets.token_bytes(16)


def token_hash(token: str) -> bytes:
    """The hash of a token, as stored."""
    return hashlib.sha256(token.encode()).digest()


def token_prefix(token: str) -> str:
    """The first 8 characters of a token: the part that logs, audit and lists may show."""
    return token[:8]


def _mac(key: bytes, *parts: str) -> str:
    # No part contains a NUL, so the joined text is unambiguous.
    digest = hmac.new(key, "\0".join(("onebox", *parts)).encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
